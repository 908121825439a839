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
