{{/* What selects the pods of the Deployment. */}}
{{- define "session-sidecar.app.selector" -}}
app.kubernetes.io/name: session-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What the chart refuses beside what the library refuses. */}}
{{- define "session-sidecar.app.check" -}}
{{- include "session-sidecar.check" . -}}
{{- $v := .Values.sidecar -}}
{{- if not $v.network.enabled -}}
{{- fail "sidecar.network.enabled is false: nobody outside its pod could call the service. Leave it on, or put the sidecar into your own pods with session-sidecar-lib" -}}
{{- end -}}
{{- if eq .Values.mode "gateway" -}}
{{- if not (and $v.doorListener.enabled $v.doorListener.routable) -}}
{{- fail "mode: gateway needs sidecar.doorListener.enabled and sidecar.doorListener.routable: pages and the gateway ask the door" -}}
{{- end -}}
{{- if not (or $v.door $v.policyConfigMap) -}}
{{- fail "mode: gateway needs sidecar.door: it says which cookie names the session and where people log in (docs/http-door.md)" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether anything runs: `platform` only has what a cluster needs once. */}}
{{- define "session-sidecar.app.runs" -}}
{{- if ne .Values.mode "platform" -}}yes{{- end -}}
{{- end -}}

{{/*
A value as a CEL expression: (list TYPE VALUE). Objects have the type of their place, for a literal map must have values of one kind;
quantities, which do, are maps, for their names are no identifiers.
*/}}
{{- define "session-sidecar.cel" -}}
{{- $type := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- if or (hasSuffix ".requests" $type) (hasSuffix ".limits" $type) -}}
{{ toJson $value }}
{{- else -}}
{{ $type }}{ {{- range $index, $key := keys $value | sortAlpha }}{{ if $index }}, {{ end }}{{ $key }}: {{ include "session-sidecar.cel" (list (printf "%s.%s" $type $key) (get $value $key)) }}{{ end -}} }
{{- end -}}
{{- else if kindIs "slice" $value -}}
[{{- range $index, $item := $value }}{{ if $index }}, {{ end }}{{ include "session-sidecar.cel" (list $type $item) }}{{ end -}}]
{{- else -}}
{{ toJson $value }}
{{- end -}}
{{- end -}}
