{{- define "fairlead.selector" -}}
app.kubernetes.io/name: fairlead
app.kubernetes.io/component: operator
{{- end }}

{{- define "fairlead.labels" -}}
{{ include "fairlead.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "fairlead.imageOf" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end }}
{{- end }}

{{- define "fairlead.image" -}}
{{ include "fairlead.imageOf" (dict "image" .Values.image "version" .Chart.AppVersion) }}
{{- end }}

{{- define "fairlead.proxyImage" -}}
{{ include "fairlead.imageOf" (dict "image" .Values.proxy.image "version" .Chart.AppVersion) }}
{{- end }}

{{- define "fairlead.replicas" -}}
{{- if kindIs "invalid" .Values.operator.replicas -}}
{{ ternary 2 1 (eq .Values.fairlead.highAvailability "Enabled") }}
{{- else -}}
{{ int .Values.operator.replicas }}
{{- end }}
{{- end }}

{{- /* The components, with what the CNI plug-in makes of them. */ -}}
{{- define "fairlead.components" -}}
{{- $components := deepCopy .Values.fairlead.components -}}
{{- if .Values.mesh.cni.enabled -}}
{{- $components = mergeOverwrite (dict "mesh" (dict "capture" "Cni")) $components -}}
{{- end -}}
{{- with $components }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "fairlead.cniSelector" -}}
app.kubernetes.io/name: fairlead
app.kubernetes.io/component: cni
{{- end }}

{{- define "fairlead.cniLabels" -}}
{{ include "fairlead.cniSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "fairlead.cniExempt" -}}
{{- concat (list "kube-system" .Release.Namespace .Values.mesh.cni.namespace) .Values.mesh.cni.exemptNamespaces | uniq | join "," -}}
{{- end }}
