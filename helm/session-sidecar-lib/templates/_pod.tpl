{{/* An entry of initContainers: a native sidecar (Kubernetes 1.29 or newer). Nothing with `mode: classic`. */}}
{{- define "session-sidecar.initContainers" -}}
{{- if eq .Values.sidecar.mode "native" -}}
{{- if semverCompare "<1.29-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "sidecar.mode native needs Kubernetes 1.29 or newer, and this is %s: set sidecar.mode to classic" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
- restartPolicy: Always
  {{- include "session-sidecar.container" . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* An entry of containers with `mode: classic`. Nothing for a native sidecar. */}}
{{- define "session-sidecar.containers" -}}
{{- if eq .Values.sidecar.mode "classic" -}}
- {{ include "session-sidecar.container" . | nindent 2 | trim }}
{{- end -}}
{{- end -}}

{{/* The container itself. */}}
{{- define "session-sidecar.container" -}}
{{- include "session-sidecar.check" . -}}
{{- $v := .Values.sidecar -}}
name: session-sidecar
image: {{ include "session-sidecar.image" . | quote }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args:
  {{- include "session-sidecar.args" . | nindent 2 }}
{{- with $v.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: session-admin
    containerPort: {{ $v.admin.port }}
    protocol: TCP
  {{- if $v.network.enabled }}
  - name: session-api
    containerPort: {{ $v.network.port }}
    protocol: TCP
  {{- end }}
  {{- if and $v.doorListener.enabled $v.doorListener.routable }}
  - name: session-door
    containerPort: {{ $v.doorListener.port }}
    protocol: TCP
  {{- end }}
# It listens: that is all. With a store that is away it listens after 10 s and answers UNAVAILABLE.
startupProbe:
  {{- include "session-sidecar.livez" . | nindent 2 }}
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 30
livenessProbe:
  {{- include "session-sidecar.livez" . | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: session-admin
  periodSeconds: 2
  timeoutSeconds: 2
{{- if and $v.preStopSleepSeconds (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version) }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ $v.preStopSleepSeconds }}
{{- end }}
{{- with $v.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop:
      - ALL
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  {{- with $v.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- range include "session-sidecar.mounts" . | fromYamlArray }}
  - name: {{ .name }}
    mountPath: {{ .path }}
    {{- if not .writable }}
    readOnly: true
    {{- end }}
  {{- end }}
{{- end -}}

{{/* How the startup and liveness probes ask. */}}
{{- define "session-sidecar.livez" -}}
{{- with include "session-sidecar.probeSocket" . -}}
exec:
  command:
    - /usr/local/bin/session-sidecar
    - healthcheck
    - --target=unix:{{ . }}
{{- else -}}
httpGet:
  path: /livez
  port: session-admin
{{- end -}}
{{- end -}}

{{/*
The socket of the probes, or nothing. Istio sends the probes of all containers, also a native sidecar's, to its own proxy (port 15020), unless they run
a command. If that proxy is an ordinary container it starts after the init containers, and these wait for our startup probe: nothing would ever start; and
liveness would fail for as long as other init containers run. Readiness is asked over HTTP all the same: without the proxy the pod is not ready anyway.
The socket is the probes' own, so that they do not depend on whom `socket` lets in, or on whether it is there.
A command is a connection, of which there are `maxConnections`: hence only where it must be, and not in a service that others could fill.
*/}}
{{- define "session-sidecar.probeSocket" -}}
{{- $v := .Values.sidecar -}}
{{- if and (eq $v.mode "native") (eq $v.mesh.kind "istio") -}}
/run/session-sidecar-probe/probe.sock
{{- end -}}
{{- end -}}

{{/* Everything that is mounted into the sidecar: name, path, and what the volume is. The one place that knows it. */}}
{{- define "session-sidecar.mounts" -}}
{{- $v := .Values.sidecar -}}
{{- if $v.socket.enabled }}
- name: session-sidecar
  path: /run/session-sidecar
  writable: true
  source:
    emptyDir:
      sizeLimit: 1Mi
{{- end }}
{{- if $v.adminSocket.enabled }}
- name: session-sidecar-admin
  path: /run/session-sidecar-admin
  writable: true
  source:
    emptyDir:
      sizeLimit: 1Mi
{{- end }}
{{- if include "session-sidecar.probeSocket" . }}
- name: session-sidecar-probe
  path: /run/session-sidecar-probe
  writable: true
  source:
    emptyDir:
      sizeLimit: 1Mi
{{- end }}
- name: session-sidecar-policy
  path: /etc/session-sidecar/policy
  source:
    configMap:
      name: {{ $v.policyConfigMap | default (include "session-sidecar.fullname" .) }}
{{- $secrets := list (list "key" $v.key "key") -}}
{{- if $v.store.url -}}
{{- $secrets = concat $secrets (list (list "other-key" $v.store.otherKey "key") (list "store-password" $v.store.password "password") (list "sentinel-password" $v.store.sentinelPassword "password") (list "store-ca" $v.store.ca "ca.crt")) -}}
{{- end -}}
{{- if $v.network.enabled -}}
{{- $secrets = concat $secrets (list (list "tls" $v.network.tls "") (list "client-ca" $v.network.clientCa "ca.crt") (list "token" $v.network.token "token")) -}}
{{- end -}}
{{- range $index, $caller := $v.callers -}}
{{- with $caller.tokenSecret -}}
{{- $secrets = append $secrets (list (printf "callers/%d" $index) . "token") -}}
{{- end -}}
{{- end -}}
{{- range $secrets }}
{{- $place := index . 0 -}}
{{- $secret := index . 1 -}}
{{- if $secret.secretName }}
- name: session-sidecar-{{ $place | replace "/" "-" }}
  path: /etc/session-sidecar/{{ $place }}
  source:
    secret:
      secretName: {{ $secret.secretName }}
      # Its group reads it, which is the pod's fsGroup; others do not.
      defaultMode: 0440
      {{- if index . 2 }}
      items:
        - key: {{ $secret.key }}
          path: {{ index . 2 }}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Entries of the pod's volumes. */}}
{{- define "session-sidecar.volumes" -}}
{{- range include "session-sidecar.mounts" . | fromYamlArray }}
- name: {{ .name }}
  {{- toYaml .source | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Entries of volumeMounts of the containers that call the sidecar. */}}
{{- define "session-sidecar.volumeMounts" -}}
{{- if .Values.sidecar.socket.enabled -}}
- name: session-sidecar
  mountPath: /run/session-sidecar
{{- end -}}
{{- end -}}

{{/* Entries of env of the containers that call the sidecar: clients read SESSION_SIDECAR_TARGET. */}}
{{- define "session-sidecar.env" -}}
- name: SESSION_SIDECAR_TARGET
  value: {{ include "session-sidecar.target" . }}
{{- end -}}

{{/* Where containers of the pod find the sidecar. */}}
{{- define "session-sidecar.target" -}}
{{- with .Values.sidecar -}}
{{ if .socket.enabled }}unix:/run/session-sidecar/api.sock{{ else }}http://127.0.0.1:{{ .loopback.port }}{{ end }}
{{- end -}}
{{- end -}}

{{/* Labels of the pod: by these PodMonitors find it. */}}
{{- define "session-sidecar.podLabels" -}}
session-sidecar/scrape: "true"
session-sidecar/config: {{ include "session-sidecar.fullname" . }}
{{- end -}}

{{/* Annotations of the pod, for its mesh: probes and metrics are plain HTTP, and asked for by who is not in the mesh. */}}
{{- define "session-sidecar.podAnnotations" -}}
{{- with .Values.sidecar.mesh }}
{{- $admin := include "session-sidecar.text" $.Values.sidecar.admin.port -}}
{{- $out := list }}{{ range .bypassPorts }}{{ $out = append $out (include "session-sidecar.text" .) }}{{ end -}}
{{- if eq .kind "istio" -}}
traffic.sidecar.istio.io/excludeInboundPorts: {{ $admin | quote }}
{{- with $out }}
traffic.sidecar.istio.io/excludeOutboundPorts: {{ join "," . | quote }}
{{- end }}
{{- else if eq .kind "linkerd" -}}
config.linkerd.io/skip-inbound-ports: {{ $admin | quote }}
{{- with $out }}
config.linkerd.io/skip-outbound-ports: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Keys of the pod's securityContext. The group owns the socket's directory and the files of Secrets; the ports are kept from outgoing connections. */}}
{{- define "session-sidecar.podSecurityContext" -}}
{{- $v := .Values.sidecar -}}
{{- with $v.fsGroup -}}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- if and $v.reservePorts (semverCompare ">=1.27-0" .Capabilities.KubeVersion.Version) }}
{{- $ports := list -}}
{{- range $port := include "session-sidecar.ports" . | fromYaml -}}
{{- $ports = append $ports (int $port | toString) -}}
{{- end }}
sysctls:
  - name: net.ipv4.ip_local_reserved_ports
    value: {{ $ports | uniq | sortAlpha | join "," | quote }}
{{- end }}
{{- end -}}

{{/* The pod's time to stop: the sidecar's drain, and what went before it. Use it, or more, as terminationGracePeriodSeconds. */}}
{{- define "session-sidecar.terminationGracePeriodSeconds" -}}
{{- add .Values.sidecar.drainSeconds .Values.sidecar.preStopSleepSeconds 10 -}}
{{- end -}}

{{/* Objects beside the pod. Include it in a file of its own. */}}
{{- define "session-sidecar.objects" -}}
{{- include "session-sidecar.check" . -}}
{{- if not .Values.sidecar.policyConfigMap -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "session-sidecar.fullname" . }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "session-sidecar.labels" . | nindent 4 }}
data:
  policy.toml: |
    {{- include "session-sidecar.policies" . | nindent 4 }}
{{- end }}
{{- if .Values.sidecar.podMonitor.enabled }}
---
{{ include "session-sidecar.podMonitor" (list . false) }}
{{- end }}
{{- end -}}

{{/* A PodMonitor: (list . ANY), of this release's namespace, or of any. */}}
{{- define "session-sidecar.podMonitor" -}}
{{- $root := index . 0 -}}
{{- $monitor := $root.Values.sidecar.podMonitor -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "session-sidecar.fullname" $root }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "session-sidecar.labels" $root | nindent 4 }}
    {{- with $monitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- if index . 1 }}
  namespaceSelector:
    any: true
  selector:
    matchLabels:
      session-sidecar/scrape: "true"
  {{- else }}
  selector:
    matchLabels:
      {{- include "session-sidecar.podLabels" $root | nindent 6 }}
  {{- end }}
  podMetricsEndpoints:
    - port: session-admin
      path: /metrics
      interval: {{ $monitor.interval }}
{{- end -}}
