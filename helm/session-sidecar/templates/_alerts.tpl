{{/* The groups of files/alerts.yaml, which is a rules file as it stands, with this installation's cap, days and address of the runbook. */}}
{{- define "session-sidecar.app.alerts" -}}
{{- $groups := list -}}
{{- range $group := (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- $expr := $rule.expr | replace "1000000" (include "session-sidecar.maxSessions" $) | replace "7 * 86400" (printf "%d * 86400" (int $.Values.prometheusRule.certificateDays)) -}}
{{- $annotations := set (deepCopy $rule.annotations) "runbook_url" (printf "%s#%s" $.Values.prometheusRule.runbookUrl (lower $rule.alert)) -}}
{{- $rules = append $rules (merge (dict "expr" $expr "annotations" $annotations "labels" (merge (deepCopy $.Values.prometheusRule.alertLabels) $rule.labels)) $rule) -}}
{{- end -}}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}
