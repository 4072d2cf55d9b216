{{/* The name of what belongs to the sidecar of this release. */}}
{{- define "session-sidecar.fullname" -}}
{{- if contains "session-sidecar" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-session-sidecar" (.Release.Name | trunc 36 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* Labels of objects. */}}
{{- define "session-sidecar.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: session-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Subcharts.sidecar.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* The image, by digest if there is one. */}}
{{- define "session-sidecar.image" -}}
{{- $image := .Values.sidecar.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Subcharts.sidecar.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* A value as TOML: tables are inline. JSON's texts, numbers and truths are TOML's. */}}
{{- define "session-sidecar.toml" -}}
{{- if kindIs "map" . -}}
{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ $key | toJson }} = {{ include "session-sidecar.toml" (get $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{- range $index, $item := . }}{{ if $index }}, {{ end }}{{ include "session-sidecar.toml" $item }}{{ end }}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* The keys of a table, a line each; keys whose value is null are left out. Lists of tables have a table a line. */}}
{{- define "session-sidecar.toml.lines" -}}
{{- range $key := keys . | sortAlpha -}}
{{- $value := get $ $key -}}
{{- if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) }}
{{ $key }} = [
{{- range $value }}
  {{ include "session-sidecar.toml" . }},
{{- end }}
]
{{- else if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "session-sidecar.toml" $value }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The policy file. */}}
{{- define "session-sidecar.policies" -}}
{{- $v := .Values.sidecar -}}
# Made from the chart's values. A change reaches running sidecars within two minutes or so, without a restart.
{{- $policies := $v.policies | default (dict "default" (dict "idle_timeout" "15m" "absolute_timeout" "12h")) }}
{{- range $name := keys $policies | sortAlpha }}

[policy.{{ $name | toJson }}]
{{- include "session-sidecar.toml.lines" (get $policies $name) }}
{{- end }}
{{- with $v.door }}

[door]
{{- include "session-sidecar.toml.lines" . }}
{{- end }}
{{- range $index, $caller := $v.callers }}

[[callers]]
{{- $told := omit $caller "tokenSecret" }}
{{- with $caller.tokenSecret }}
{{- $told = merge (dict "token_file" (printf "/etc/session-sidecar/callers/%d/token" $index)) $told }}
{{- end }}
{{- include "session-sidecar.toml.lines" $told }}
{{- end }}
{{- end -}}

{{/* A scalar as text. Numbers of a values file are floating ones, and a million of those would be 1e+06. */}}
{{- define "session-sidecar.text" -}}
{{- if kindIs "float64" . -}}{{- int64 . -}}{{- else -}}{{- . -}}{{- end -}}
{{- end -}}

{{/* The query of a listener: (list URL-options DICT). Lists are joined by commas. */}}
{{- define "session-sidecar.query" -}}
{{- $parts := list -}}
{{- range $pair := . -}}
{{- $value := index $pair 1 -}}
{{- if kindIs "slice" $value -}}
{{- $items := list -}}
{{- range $value -}}{{- $items = append $items (include "session-sidecar.text" . | urlquery) -}}{{- end -}}
{{- $value = join "," $items -}}
{{- end -}}
{{- if $value -}}{{- $parts = append $parts (printf "%s=%s" (index $pair 0) (toString $value)) -}}{{- end -}}
{{- end -}}
{{- with $parts -}}?{{ join "&" . }}{{- end -}}
{{- end -}}

{{/* The cap of live sessions. */}}
{{- define "session-sidecar.maxSessions" -}}
{{- .Values.sidecar.maxSessions | default (ternary 1000000 100000 (ne .Values.sidecar.store.url "")) | int -}}
{{- end -}}

{{/* The arguments of `serve`, as a YAML list. */}}
{{- define "session-sidecar.args" -}}
{{- $v := .Values.sidecar -}}
{{- $args := list "serve" -}}
{{- $none := list -}}
{{- with $v.socket -}}{{- if .enabled -}}
{{- $query := list (list "mode" .mode) (list "group" .group) (list "uids" .uids) (list "gids" .gids) (list "tenants" .tenants) (list "verbs" .verbs) -}}
{{- $args = append $args (printf "--listen=unix:///run/session-sidecar/api.sock%s" (include "session-sidecar.query" $query)) -}}
{{- end -}}{{- end -}}
{{- with $v.adminSocket -}}{{- if .enabled -}}
{{- $query := list (list "mode" "0600") (list "tenants" .tenants) (list "verbs" (list "admin")) -}}
{{- $args = append $args (printf "--listen=unix:///run/session-sidecar-admin/admin.sock%s" (include "session-sidecar.query" $query)) -}}
{{- end -}}{{- end -}}
{{- if include "session-sidecar.probeSocket" . -}}
{{- $args = append $args (printf "--listen=unix://%s?mode=0600&verbs=none" (include "session-sidecar.probeSocket" .)) -}}
{{- end -}}
{{- with $v.loopback -}}{{- if .enabled -}}
{{- $query := list (list "tenants" .tenants) (list "verbs" .verbs) -}}
{{- $args = append $args (printf "--listen=tcp://127.0.0.1:%d%s" (int .port) (include "session-sidecar.query" $query)) -}}
{{- end -}}{{- end -}}
{{- with $v.network -}}{{- if .enabled -}}
{{- $query := list (list "tenants" .tenants) (list "verbs" .verbs) -}}
{{- if .token.secretName -}}{{- $query = prepend $query (list "token-file" "/etc/session-sidecar/token/token") -}}{{- end -}}
{{- if .clientCa.secretName -}}{{- $query = prepend $query (list "client-ca-file" "/etc/session-sidecar/client-ca/ca.crt") -}}{{- end -}}
{{- if .tls.secretName -}}
{{- $query = concat (list (list "tls-cert-file" "/etc/session-sidecar/tls/tls.crt") (list "tls-key-file" "/etc/session-sidecar/tls/tls.key")) $query -}}
{{- end -}}
{{- $args = append $args (printf "--listen=tcp://%s:%d%s" $v.bindAddress (int .port) (include "session-sidecar.query" $query)) -}}
{{- end -}}{{- end -}}
{{- $args = append $args (printf "--admin-listen=%s:%d" $v.bindAddress (int $v.admin.port)) -}}
{{- with $v.doorListener -}}{{- if .enabled -}}
{{- $args = append $args (printf "--door-listen=%s:%d" (ternary $v.bindAddress "127.0.0.1" .routable) (int .port)) -}}
{{- end -}}{{- end -}}
{{- if or (and $v.network.enabled $v.network.allowPlaintext) (and $v.doorListener.enabled $v.doorListener.routable) -}}
{{- $args = append $args "--allow-plaintext" -}}
{{- end -}}
{{- $args = append $args "--policy-file=/etc/session-sidecar/policy/policy.toml" -}}
{{- if $v.store.url -}}
{{- $args = concat $args (list (printf "--store=%s" $v.store.url) "--store-key-file=/etc/session-sidecar/key/key") -}}
{{- if $v.store.otherKey.secretName -}}{{- $args = append $args "--store-other-key-file=/etc/session-sidecar/other-key/key" -}}{{- end -}}
{{- if $v.store.password.secretName -}}{{- $args = append $args "--store-password-file=/etc/session-sidecar/store-password/password" -}}{{- end -}}
{{- if $v.store.sentinelPassword.secretName -}}{{- $args = append $args "--store-sentinel-password-file=/etc/session-sidecar/sentinel-password/password" -}}{{- end -}}
{{- if $v.store.ca.secretName -}}{{- $args = append $args "--store-ca-file=/etc/session-sidecar/store-ca/ca.crt" -}}{{- end -}}
{{- $args = concat $args (list (printf "--store-namespace=%s" $v.store.namespace) (printf "--store-window=%s" $v.store.window) (printf "--store-format=%d" (int $v.store.format)) (printf "--store-outage=%s" $v.store.outage)) -}}
{{- else if $v.key.secretName -}}
{{- $args = append $args "--key-file=/etc/session-sidecar/key/key" -}}
{{- end -}}
{{- $args = concat $args (list
      (printf "--max-sessions=%s" (include "session-sidecar.maxSessions" .))
      (printf "--max-tombstones=%d" (int $v.maxTombstones))
      (printf "--max-watchers=%d" (int $v.maxWatchers))
      (printf "--max-connections=%d" (int $v.maxConnections))
      (printf "--drain-timeout=%ds" (int $v.drainSeconds))
      (printf "--log=%s" $v.log.filter)
      (printf "--log-format=%s" $v.log.format)) -}}
{{- if ne $v.audit.target "off" -}}
{{- $args = concat $args (list (printf "--audit-log=%s" $v.audit.target) (printf "--audit-subject=%s" $v.audit.subject)) -}}
{{- end -}}
{{- if $v.workers -}}{{- $args = append $args (printf "--workers=%d" (int $v.workers)) -}}{{- end -}}
{{- concat $args $v.extraArgs | toYaml -}}
{{- end -}}
