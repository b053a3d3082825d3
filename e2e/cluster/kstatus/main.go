// Command kstatus reads Kubernetes objects as JSON from standard input, one after the other or as a List,
// and prints what kstatus makes of each, one line of JSON per object.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	objectjson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type verdict struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	Message   string `json:"message"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(in)
	encoder := json.NewEncoder(out)
	for {
		var text json.RawMessage
		if err := decoder.Decode(&text); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("failed to read an object: %w", err)
		}
		// Not encoding/json: whole numbers must stay whole.
		var content map[string]any
		if err := objectjson.Unmarshal(text, &content); err != nil {
			return fmt.Errorf("failed to read an object: %w", err)
		}
		object := &unstructured.Unstructured{Object: content}
		if !object.IsList() {
			if err := judge(object, encoder); err != nil {
				return err
			}
			continue
		}
		err := object.EachListItem(func(item runtime.Object) error {
			return judge(item.(*unstructured.Unstructured), encoder)
		})
		if err != nil {
			return err
		}
	}
}

func judge(object *unstructured.Unstructured, out *json.Encoder) error {
	result, err := status.Compute(object)
	if err != nil {
		return fmt.Errorf("failed to judge %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return out.Encode(verdict{
		Kind:      object.GetKind(),
		Namespace: object.GetNamespace(),
		Name:      object.GetName(),
		Status:    string(result.Status),
		Message:   result.Message,
	})
}
