{{/*
What whoever installs your chart should read. Include it in your NOTES.txt:
    {{ include "session-sidecar.notes" . }}
*/}}
{{- define "session-sidecar.notes" -}}
{{- include "session-sidecar.check" . -}}
{{- $v := .Values.sidecar -}}
session-sidecar {{ .Subcharts.sidecar.Chart.AppVersion }} is in each pod of {{ .Release.Name }}.
{{/* The variable names one of the two. Where neither is there, only other machines are served. */}}
{{- if or $v.socket.enabled $v.loopback.enabled }}
  API       SESSION_SIDECAR_TARGET={{ include "session-sidecar.target" . }}
{{- if and $v.socket.enabled $v.loopback.enabled }}
            http://127.0.0.1:{{ $v.loopback.port }} in the pod, for clients that cannot dial a socket
{{- end }}
{{- end }}
{{- if $v.network.enabled }}
  network   port {{ $v.network.port }} of each pod: the API for other machines
{{- end }}
  metrics   port {{ $v.admin.port }} of each pod, /metrics: {{ if $v.podMonitor.enabled }}scraped by the PodMonitor {{ include "session-sidecar.fullname" . }}
            {{- else }}a PodMonitor finds it by the label session-sidecar/scrape=true{{ end }}

{{ include "session-sidecar.notes.rollout" . }}
{{- end -}}

{{/* What a rollout loses, and what needs none: the same wherever the sidecar runs. */}}
{{- define "session-sidecar.notes.rollout" -}}
{{- $v := .Values.sidecar -}}
{{- if $v.store.url -}}
WHAT A ROLLOUT LOSES: nothing. Sessions are in {{ $v.store.url }}; watchers resume at another pod.
{{- else -}}
WHAT A ROLLOUT LOSES: everything. Sessions live in the memory of one process, so each rollout, eviction or crash logs all people out:
their sessions become UNKNOWN, remembered ends too, and watchers begin anew. The old pod stops before the new one starts (strategy
Recreate), and callers fail closed in between. If that is too much, share a store: sidecar.store.url, docs/one-pod-or-many.md.
{{- if $v.stickySessions }}
You said that sessions stick to a pod. Where they do not, people are logged out though they are active.
{{- end }}
{{- end }}
A change of {{ with $v.policyConfigMap }}the ConfigMap {{ . }}{{ else }}sidecar.policies{{ end }} is followed without a rollout.
{{- end -}}
