{{- define "kco.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* "<release>-<chart>", or just the release where that says it already. */}}
{{- define "kco.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "kco.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kco.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kco.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kco.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kco.labels" -}}
{{ include "kco.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: kafka-consumer-operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "kco.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kco.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* image reference of a {repository, tag, digest}: include "kco.image" (list $ .Values.image) */}}
{{- define "kco.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What the operator may do in a namespace that it serves. The same list in both modes. */}}
{{- define "kco.rules" -}}
# The resources it is there for. It never writes a spec, but for replicas (below).
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaconsumergroups]
  verbs: [get, list, watch]
# Says what is going on. Workers get the same verb for their own resource, and nobody may grant what they do not hold.
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaconsumergroups/status]
  verbs: [patch]
# Seeds replicas once in Manual mode, so that kubectl scale, HPA and KEDA find a number there.
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaconsumergroups/scale]
  verbs: [patch, update]
# Children of a group: the configuration of its workers and the account they run as. ConfigMaps are also read where a
# resource refers to one (VRL programs, certificate authorities).
- apiGroups: [""]
  resources: [serviceaccounts, configmaps]
  verbs: [create, get, list, watch, patch, delete]
# Children of a group: the workers.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, get, list, watch, patch, delete]
# Children of a group: the right of its workers to report into that one resource, and nothing else.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [create, get, list, watch, patch, delete]
# Children of a group: keeps node drains from taking all of its workers at once.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, get, list, watch, patch, delete]
# Credentials that resources refer to: read to ask Kafka for partitions and lag, watched to notice changes. Never written.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
# Why a worker does not start is told by its pod. Patched (annotations only) to hand Paused to the kubelet at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# Tells of decisions and failures.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
