package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// provisionerName is what a StorageClass names to have its claims served here.
const provisionerName = "fairlead.dev/local-volumes"

// newLocalVolumesCommand makes directories of one host into persistent volumes. The directories are
// open to every uid, because the kubelet gives no hostPath volume to a pod's fsGroup; the in-tree
// hostPath provisioner makes them for root alone, so that a pod that runs as another user cannot write.
func newLocalVolumesCommand() *cobra.Command {
	var kubeconfig, directory string
	command := &cobra.Command{
		Use:          "local-volumes",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return fmt.Errorf("failed to read %s: %w", kubeconfig, err)
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("failed to make a client: %w", err)
			}
			return newLocalVolumes(client, directory).run(ctx)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "file that says how to reach the API server")
	command.Flags().StringVar(&directory, "directory", "", "folder in which each volume is a directory")
	return command
}

type localVolumes struct {
	client    kubernetes.Interface
	directory string
	factory   informers.SharedInformerFactory
	wake      chan struct{}
}

func newLocalVolumes(client kubernetes.Interface, directory string) *localVolumes {
	return &localVolumes{
		client:    client,
		directory: directory,
		factory:   informers.NewSharedInformerFactory(client, time.Minute),
		wake:      make(chan struct{}, 1),
	}
}

// run visits all claims and volumes after each change of one: a cluster for tests has few of them.
func (l *localVolumes) run(ctx context.Context) error {
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { l.poke() },
		UpdateFunc: func(any, any) { l.poke() },
		DeleteFunc: func(any) { l.poke() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		l.factory.Core().V1().PersistentVolumeClaims().Informer(),
		l.factory.Core().V1().PersistentVolumes().Informer(),
		l.factory.Storage().V1().StorageClasses().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("failed to watch: %w", err)
		}
	}
	l.factory.Start(ctx.Done())
	l.factory.WaitForCacheSync(ctx.Done())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			if err := l.visit(ctx); err != nil {
				klog.ErrorS(err, "failed to serve volumes, trying again")
				time.AfterFunc(time.Second, l.poke)
			}
		}
	}
}

func (l *localVolumes) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *localVolumes) visit(ctx context.Context) error {
	claims, err := l.factory.Core().V1().PersistentVolumeClaims().Lister().List(labels.Everything())
	if err != nil {
		return err
	}
	for _, claim := range claims {
		if err := l.provide(ctx, claim); err != nil {
			return fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
	}
	volumes, err := l.factory.Core().V1().PersistentVolumes().Lister().List(labels.Everything())
	if err != nil {
		return err
	}
	for _, volume := range volumes {
		if err := l.reclaim(ctx, volume); err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

func (l *localVolumes) provide(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := l.factory.Storage().V1().StorageClasses().Lister().Get(*claim.Spec.StorageClassName)
	if apierrors.IsNotFound(err) || (err == nil && class.Provisioner != provisionerName) {
		return nil
	}
	if err != nil {
		return err
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(l.directory, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	// The process's umask must not take anything away.
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	volume := volumeFor(claim, class, name, path)
	_, err = l.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func volumeFor(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, name, path string) *corev1.PersistentVolume {
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisionerName},
		},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: policy,
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    claim.Spec.VolumeMode,
			Capacity: corev1.ResourceList{
				corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage],
			},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1",
				Kind:       "PersistentVolumeClaim",
				Namespace:  claim.Namespace,
				Name:       claim.Name,
				UID:        claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: path},
			},
		},
	}
}

func (l *localVolumes) reclaim(ctx context.Context, volume *corev1.PersistentVolume) error {
	ours := volume.Annotations["pv.kubernetes.io/provisioned-by"] == provisionerName
	released := volume.Status.Phase == corev1.VolumeReleased || volume.Status.Phase == corev1.VolumeFailed
	deletes := volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	if !ours || !released || !deletes || volume.DeletionTimestamp != nil {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(l.directory, volume.Name)); err != nil {
		return err
	}
	err := l.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}
