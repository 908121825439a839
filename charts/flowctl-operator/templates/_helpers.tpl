{{- define "flowctl-operator.fullname" -}}
{{- if contains "flowctl-operator" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-flowctl-operator" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "flowctl-operator.selector" -}}
app.kubernetes.io/name: flowctl-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flowctl-operator.labels" -}}
{{ include "flowctl-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "flowctl-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "flowctl-operator.fullname" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "flowctl-operator.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "flowctl-operator.runnerImage" -}}
{{ .Values.runner.image | default (printf "flowctl-runner:%s" (.Values.image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{- define "flowctl-operator.controlPlane.name" -}}
{{ include "flowctl-operator.fullname" . }}-control-plane
{{- end }}

{{- /* Not empty when the chart runs a control plane: unless it is switched off, or another one is named. */}}
{{- define "flowctl-operator.controlPlane.own" -}}
{{- if and .Values.controlPlane.enabled (not .Values.controlPlane.external.endpoint) }}true{{ end }}
{{- end }}

{{- define "flowctl-operator.controlPlane.endpoint" -}}
{{- if include "flowctl-operator.controlPlane.own" . -}}
{{ include "flowctl-operator.controlPlane.name" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:8080
{{- else -}}
{{ .Values.controlPlane.external.endpoint }}
{{- end }}
{{- end }}

{{- define "flowctl-operator.controlPlane.caBundle" -}}
{{- if include "flowctl-operator.controlPlane.own" . }}{{ .Values.controlPlane.tls.caBundle }}{{ else }}{{ .Values.controlPlane.external.caBundle }}{{ end }}
{{- end }}

{{- define "flowctl-operator.controlPlane.selector" -}}
app.kubernetes.io/name: flowctl
app.kubernetes.io/component: control-plane
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flowctl-operator.controlPlane.labels" -}}
{{ include "flowctl-operator.controlPlane.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
