{{/* Names, labels, and what the pods of all services have in common. */}}

{{- define "keymeter.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels of an object; the argument is (dict "root" $ "service" "keys"). */}}
{{- define "keymeter.labels" -}}
{{ include "keymeter.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: keymeter
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "keymeter.selector" -}}
app.kubernetes.io/name: keymeter
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{/* Ports of a service: its own, if it has one, and that of its health. */}}
{{- define "keymeter.ports" -}}
{{- $ports := dict "keys" 50051 "query" 50052 "edge" 8081 "ui" 8080 -}}
{{- $health := dict "keys" 9101 "edge" 9102 "ingest" 9103 "query" 9104 "ui" 9105 -}}
{{ dict "own" (get $ports .) "health" (get $health .) | toJson }}
{{- end }}

{{- define "keymeter.image" -}}
{{ .root.Values.image.repository }}/{{ .service }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* A settings map as environment. */}}
{{- define "keymeter.environment" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* How the services speak to each other. */}}
{{- define "keymeter.scheme" -}}
http{{ .Values.identity.enabled | ternary "s" "" }}
{{- end }}

{{/* Who a service is: settings for its environment, where the files are mounted, and the Secret that has them. */}}
{{- define "keymeter.identity-settings" -}}
{{- if .root.Values.identity.enabled }}
KEYMETER_IDENTITY_CERT_FILE: /etc/keymeter-identity/tls.crt
KEYMETER_IDENTITY_KEY_FILE: /etc/keymeter-identity/tls.key
KEYMETER_IDENTITY_CA_FILE: /etc/keymeter-identity/ca.crt
{{- if has .service (list "edge" "ui") }}
KEYMETER_{{ upper .service }}_TLS_CERT_FILE: /etc/keymeter-identity/tls.crt
KEYMETER_{{ upper .service }}_TLS_KEY_FILE: /etc/keymeter-identity/tls.key
{{- end }}
{{- else }}
{}
{{- end }}
{{- end }}

{{- define "keymeter.identity-mount" -}}
{{- if .root.Values.identity.enabled }}
- { name: identity, mountPath: /etc/keymeter-identity, readOnly: true }
{{- end }}
{{- end }}

{{- define "keymeter.identity-volume" -}}
{{- if .root.Values.identity.enabled }}
- name: identity
  secret: { secretName: {{ include "keymeter.name" .root }}-{{ .service }}-identity, defaultMode: 0440 }
{{- end }}
{{- end }}

{{/* What a pod's specification begins with. */}}
{{- define "keymeter.pod" -}}
automountServiceAccountToken: false
# The variables that Kubernetes makes of Services begin like our settings, and a setting that nobody knows is refused.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "keymeter.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "keymeter.spread" -}}
topologySpreadConstraints:
  {{- range tuple "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "keymeter.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* Ports, probes, resources and the like of a service's container. */}}
{{- define "keymeter.container" -}}
{{- $ports := include "keymeter.ports" .service | fromJson -}}
name: {{ .service }}
image: {{ include "keymeter.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
ports:
  {{- if $ports.own }}
  - { name: {{ .service }}, containerPort: {{ $ports.own }} }
  {{- end }}
  - { name: health, containerPort: {{ $ports.health }} }
securityContext: {{ include "keymeter.container-security" . | nindent 2 }}
resources: {{ toYaml (get .root.Values .service).resources | nindent 2 }}
livenessProbe:
  {{- if .root.Values.identity.enabled }}
  # The kubelet has no certificate to show.
  tcpSocket: { port: health }
  {{- else }}
  httpGet: { path: /healthz, port: health }
  {{- end }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  {{- if and .root.Values.identity.enabled (ne .service "keys") }}
  exec: { command: [/service, healthcheck] }
  {{- else if .root.Values.identity.enabled }}
  tcpSocket: { port: keys }
  {{- else }}
  # Edges follow the list of keys over gRPC just when NATS is away, so keys has to be reached then too.
  httpGet: { path: {{ eq .service "keys" | ternary "/healthz" "/readyz" }}, port: health }
  {{- end }}
  periodSeconds: 5
  timeoutSeconds: 5
{{- if $ports.own }}
lifecycle:
  # It refuses connections from its SIGTERM on; until then whoever balances has to have heard that it goes.
  preStop: { sleep: { seconds: 5 } }
{{- end }}
{{- end }}
