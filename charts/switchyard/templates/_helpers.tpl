{{/* Names are fixed: admission policies and the manager know them, and of either there is one in a cluster. */}}

{{/* An image's reference: list $ .Values.image.manager */}}
{{- define "switchyard.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What a pod is selected by: its component. */}}
{{- define "switchyard.labels" -}}
app.kubernetes.io/name: switchyard
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* What of a pod template's metadata both components share: list "manager" .Values.manager */}}
{{- define "switchyard.podMetadata" -}}
{{- $name := index . 0 }}{{ $values := index . 1 -}}
labels:
  {{- include "switchyard.labels" $name | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What of a pod's spec both components share: list $ .Values.manager */}}
{{- define "switchyard.podSpec" -}}
{{- $root := index . 0 }}{{ $values := index . 1 -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What of a container both components share: list $ .Values.manager */}}
{{- define "switchyard.container" -}}
{{- $root := index . 0 }}{{ $values := index . 1 -}}
image: {{ include "switchyard.image" (list $root $root.Values.image.manager) }}
{{- with $root.Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
resources:
  {{- toYaml $values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
