{{/* Names and labels. */}}
{{- define "tickets.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "tickets.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "tickets.name" . }}
{{- (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Of a component: (list . "gateway"). What is selected by never changes. */}}
{{- define "tickets.selector" -}}
app.kubernetes.io/name: {{ include "tickets.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- define "tickets.labels" -}}
{{ include "tickets.selector" . }}
app.kubernetes.io/version: {{ (first .).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (first .).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (first .).Chart.Name (first .).Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image: (dict "image" .Values.image "tag" .Chart.AppVersion). */}}
{{- define "tickets.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end }}
{{- end }}

{{/* Pods run as nobody in particular, and write nowhere but to what is mounted for it. */}}
{{- define "tickets.podSecurity" -}}
automountServiceAccountToken: false
# The variables of services would be taken for settings: TICKETS_… is what those of this one are called.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tickets.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods of a component go: (list . "gateway"). */}}
{{- define "tickets.placement" }}
{{- $root := first . }}
{{- $own := get $root.Values (last .) }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- if $root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- $selector := include "tickets.selector" . }}
  {{- range $root.Values.topologySpread.topologyKeys }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash] # a version's pods among themselves
  {{- end }}
{{- end }}
{{- end }}

{{/* How to reach the database at these hosts, several of which are told apart by what they are: (list . hosts "read-write").
     No secret is in the URL. */}}
{{- define "tickets.databaseUrl" -}}
{{- $database := (first .).Values.database }}
{{- $hosts := index . 1 }}
{{- $parameters := omit ($database.parameters | default dict) "target_session_attrs" }}
{{- if gt (len $hosts) 1 }}
{{- $parameters = merge (dict) $parameters (dict "target_session_attrs" (last .)) }}
{{- end }}
{{- if $database.ca.secret }}
{{- $parameters = merge (dict) $parameters (dict "sslrootcert" (printf "/etc/tickets/database/%s" $database.ca.key)) }}
{{- end }}
{{- $query := list }}
{{- range $name, $value := $parameters }}
{{- $query = append $query (printf "%s=%s" $name (toString $value | urlquery | replace "+" "%20")) }}
{{- end -}}
postgresql://{{ join "," $hosts }}/{{ $database.name | urlquery | replace "+" "%20" }}{{ if $query }}?{{ join "&" $query }}{{ end }}
{{- end }}

{{- define "tickets.databaseEnv" -}}
- name: TICKETS_DATABASE_URL
  value: {{ include "tickets.databaseUrl" (list . .Values.database.hosts "read-write") | quote }}
{{- with .Values.database.secret }}
- name: PGUSER
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .usernameKey }}}}
- name: PGPASSWORD
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .passwordKey }}}}
{{- end }}
{{- end }}

{{/* Of the service alone: nothing is migrated at a standby. */}}
{{- define "tickets.databaseReadEnv" -}}
{{- with .Values.database.readHosts }}
- name: TICKETS_DATABASE_READ_URL
  value: {{ include "tickets.databaseUrl" (list $ . "standby") | quote }}
{{- end }}
{{- end }}

{{- define "tickets.encryptionEnv" -}}
{{- with .Values.encryption }}
{{- if .secret }}
- name: TICKETS_ENCRYPTION_KEYS
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end }}
{{- end }}
{{- end }}

{{- define "tickets.databaseMount" -}}
{{- if .Values.database.ca.secret }}
- {name: database-ca, mountPath: /etc/tickets/database, readOnly: true}
{{- end }}
{{- end }}

{{- define "tickets.databaseVolume" -}}
{{- with .Values.database.ca }}
{{- if .secret }}
- name: database-ca
  secret:
    secretName: {{ .secret }}
    items: [{key: {{ .key }}, path: {{ .key }}}]
{{- end }}
{{- end }}
{{- end }}

{{/* The certificates of these sides: (list . "edge" "gateway"). Whole folders, as a single file would not be renewed. */}}
{{- define "tickets.tlsMounts" -}}
{{- $tls := (first .).Values.tls }}
{{- range rest . }}
{{- if (get $tls .).secret }}
- {name: tls-{{ . }}, mountPath: /etc/tls/{{ . }}, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "tickets.tlsVolumes" -}}
{{- $tls := (first .).Values.tls }}
{{- range $side := rest . }}
{{- with (get $tls $side).secret }}
- name: tls-{{ $side }}
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end }}

{{/* As many processes as there are, or may be. */}}
{{- define "tickets.workers" -}}
{{- with .Values.service -}}
{{ .autoscaling.enabled | ternary .autoscaling.maxReplicas .replicas }}
{{- end }}
{{- end }}

{{/* Ports of the database, for the network policy. */}}
{{- define "tickets.databasePorts" -}}
{{- $ports := list }}
{{- range concat .Values.database.hosts .Values.database.readHosts }}
{{- $ports = append $ports (regexFind "[0-9]+$" (regexFind ":[0-9]+$" .) | default "5432") }}
{{- end }}
{{- range uniq $ports }}
- {protocol: TCP, port: {{ . }}}
{{- end }}
{{- end }}
