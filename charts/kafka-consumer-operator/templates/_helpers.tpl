{{- define "kco.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* "<release>-<chart>", or only the release name if it contains the name of the chart. */}}
{{- define "kco.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "kco.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kco.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The lease: one for each release and what it watches, so that releases do not stand by for each other. */}}
{{- define "kco.leaseName" -}}
{{- $name := include "kco.fullname" . -}}
{{- if .Values.watchNamespaces -}}
{{- printf "%s-%s" ($name | trunc 54 | trimSuffix "-") (.Values.watchNamespaces | uniq | sortAlpha | join "," | sha256sum | trunc 8) -}}
{{- else -}}
{{- $name -}}
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
{{- required "serviceAccount.name is required when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Image reference of a {repository, tag, digest}: include "kco.image" (list $ .Values.image) */}}
{{- define "kco.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Permissions of the operator in a namespace that it watches. Roles and the ClusterRole use the same list. */}}
{{- define "kco.rules" -}}
# The resources that the operator reconciles. It never writes a spec, except replicas (below).
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaconsumergroups]
  verbs: [get, list, watch]
# Writes the status. With workerReports Push, the operator grants workers the same verb for their own resource,
# and an account can only grant permissions that it holds.
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaconsumergroups/status]
  verbs: [patch]
# Sets replicas (in mode Manual only once), so that kubectl scale, an HPA or KEDA can read the number.
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaconsumergroups/scale]
  verbs: [patch, update]
# Changes of committed offsets. The operator deletes those whose ttlSecondsAfterFinished is over, and never writes
# a spec.
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaoffsetresets]
  verbs: [get, list, watch, delete]
- apiGroups: [kafka-consumer.dev]
  resources: [kafkaoffsetresets/status]
  verbs: [patch]
# Replays of a part of the log. The operator deletes those whose ttlSecondsAfterFinished is over, and never writes a
# spec.
- apiGroups: [kafka-consumer.dev]
  resources: [kafkareplays]
  verbs: [get, list, watch, delete]
- apiGroups: [kafka-consumer.dev]
  resources: [kafkareplays/status]
  verbs: [patch]
# Children of a replay: its workers.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, delete]
# Children of a group: the configuration and the service account of its workers. The operator also reads
# ConfigMaps that resources reference (VRL programs, certificate authorities).
- apiGroups: [""]
  resources: [serviceaccounts, configmaps]
  verbs: [create, get, list, watch, patch, delete]
# Children of a group: the workers.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, get, list, watch, patch, delete]
# Children of a group: the permission of its workers to get this one resource and, with workerReports Push, to
# patch its status, and nothing else.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [create, get, list, watch, patch, delete]
# Children of a group: keep node drains from evicting all of its workers at once.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, get, list, watch, patch, delete]
# Credentials that resources reference. The operator reads them to query partitions and lag from Kafka,
# watches them for changes, and never writes them.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
# Worker pods show why a worker does not start. The operator patches their annotations only, so that the
# kubelet delivers Paused at once.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
# Shows whether another operator that has claimed a resource still runs.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get]
# Reports decisions and failures.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
