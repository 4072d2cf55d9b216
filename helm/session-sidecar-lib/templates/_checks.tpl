{{/* What no schema can say, since it is about several values, or about the chart that uses them. Renders nothing, or fails. */}}
{{- define "session-sidecar.check" -}}
{{- if not (and .Values.sidecar .Subcharts.sidecar) -}}
{{- fail "session-sidecar: the dependency session-sidecar-lib needs `alias: sidecar` in your Chart.yaml, for its templates read .Values.sidecar" -}}
{{- end -}}
{{- $v := .Values.sidecar -}}
{{- if and $v.store.url (not $v.key.secretName) -}}
{{- fail "sidecar.key.secretName is needed with sidecar.store.url: all sidecars of a namespace must have the same key. Make it once: head -c 32 /dev/urandom > key && kubectl create secret generic session-sidecar-key --from-file=key" -}}
{{- end -}}
{{- if and $v.store.otherKey.secretName (not $v.store.url) -}}
{{- fail "sidecar.store.otherKey is for a shared store: set sidecar.store.url, or leave it out" -}}
{{- end -}}
{{- if $v.network.enabled -}}
{{- if not (or $v.network.tls.secretName $v.network.allowPlaintext) -}}
{{- fail "sidecar.network can be reached from other machines: set sidecar.network.tls.secretName and one of clientCa.secretName and token.secretName, or sidecar.network.allowPlaintext if a mesh encrypts and decides who may call" -}}
{{- end -}}
{{- if and $v.network.tls.secretName (not (or $v.network.clientCa.secretName $v.network.token.secretName $v.network.allowPlaintext)) -}}
{{- fail "sidecar.network with TLS must know its callers: set sidecar.network.clientCa.secretName (client certificates) or sidecar.network.token.secretName (bearer tokens)" -}}
{{- end -}}
{{- if and (not $v.network.tls.secretName) (or $v.network.clientCa.secretName $v.network.token.secretName) -}}
{{- fail "sidecar.network.clientCa and sidecar.network.token need sidecar.network.tls.secretName: without TLS a token would cross the network in clear text" -}}
{{- end -}}
{{- end -}}
{{- if and $v.doorListener.enabled $v.doorListener.routable (not $v.network.allowPlaintext) (not $v.doorListener.allowPlaintext) -}}
{{- fail "sidecar.doorListener.routable serves the HTTP door in clear text to other machines: set sidecar.doorListener.allowPlaintext if the way from the gateway is encrypted or yours alone" -}}
{{- end -}}
{{- if and $v.socket.enabled (or $v.socket.uids $v.socket.gids) $v.loopback.enabled -}}
{{- fail "sidecar.socket.uids and gids keep nobody out while sidecar.loopback is enabled: every process of the pod may call that. Set sidecar.loopback.enabled to false" -}}
{{- end -}}
{{- $ports := dict -}}
{{- range $name, $port := include "session-sidecar.ports" . | fromYaml -}}
{{- $port = int $port | toString -}}
{{- with get $ports $port -}}
{{- fail (printf "sidecar.%s and sidecar.%s have the same port, %s: give them ports of their own" . $name $port) -}}
{{- end -}}
{{- $_ := set $ports $port $name -}}
{{- end -}}
{{- if not (or $v.socket.enabled $v.loopback.enabled $v.network.enabled) -}}
{{- fail "nobody could call the sidecar: enable sidecar.socket, sidecar.loopback or sidecar.network" -}}
{{- end -}}
{{- end -}}

{{/* The ports that it listens on, by the name of the value that sets each. */}}
{{- define "session-sidecar.ports" -}}
{{- $v := .Values.sidecar -}}
admin: {{ $v.admin.port }}
{{- if $v.loopback.enabled }}
loopback: {{ $v.loopback.port }}
{{- end }}
{{- if $v.network.enabled }}
network: {{ $v.network.port }}
{{- end }}
{{- if $v.doorListener.enabled }}
doorListener: {{ $v.doorListener.port }}
{{- end }}
{{- end -}}

{{/*
The number of replicas, which is refused where sessions would be lost between pods:
    replicas: {{ include "session-sidecar.replicas" (list . .Values.replicaCount) }}
*/}}
{{- define "session-sidecar.replicas" -}}
{{- $root := index . 0 -}}
{{- $replicas := int (index . 1) -}}
{{- include "session-sidecar.check" $root -}}
{{- $v := $root.Values.sidecar -}}
{{- if and (gt $replicas 1) (not $v.store.url) (not $v.stickySessions) -}}
{{- fail (printf "%d replicas with the memory store: each pod would know only the sessions that began in it, and log out people who are active elsewhere. Share a store (sidecar.store.url), have one replica, or set sidecar.stickySessions if your load balancer sends all requests of a session to one pod" $replicas) -}}
{{- end -}}
{{- $replicas -}}
{{- end -}}

{{/* The strategy of a Deployment: in memory mode two generations of pods beside each other would judge the same sessions differently. */}}
{{- define "session-sidecar.strategy" -}}
{{- if .Values.sidecar.store.url -}}
type: RollingUpdate
rollingUpdate:
  maxUnavailable: 0
  maxSurge: 1
{{- else -}}
type: Recreate
{{- end -}}
{{- end -}}
