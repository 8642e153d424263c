//! The references under `docs/` are made from the program: the schema of the configuration, and the metric families. A run with `BEARERD_ACCEPT=1` writes them
//! anew (`make references`), any other compares.

use std::fmt::Write as _;
use std::path::Path;

use bearerd::config;
use serde_json::{Map, Value};

use crate::support::bearerd::Bearerd;
use crate::support::client::get;
use crate::support::stage::Stage;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn settle(file: &str, made: &str) {
    let path = root().join("docs").join(file);
    if std::env::var_os("BEARERD_ACCEPT").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/{file} is not what the program says: run `make references`, look at the difference, and commit it");
}

/// The schema, with what it refers to.
struct Schema(Value);

impl Schema {
    fn resolved<'s>(&'s self, rule: &'s Value) -> &'s Value {
        let target = rule["$ref"].as_str().and_then(|reference| self.0.pointer(reference.strip_prefix('#')?));
        target.map_or(rule, |target| self.resolved(target))
    }

    /// All that may stand in a place, `null` left out.
    fn alternatives<'s>(&'s self, rule: &'s Value) -> Vec<&'s Value> {
        let rule = self.resolved(rule);
        let several = rule["anyOf"].as_array().or_else(|| rule["oneOf"].as_array());
        match several {
            Some(several) => several.iter().flat_map(|rule| self.alternatives(rule)).collect(),
            None if rule["type"] == "null" => Vec::new(),
            None => vec![rule],
        }
    }

    /// What may be written there, in words.
    fn takes(&self, rule: &Value) -> String {
        let mut words = Vec::new();
        for rule in self.alternatives(rule) {
            let of_enum = rule["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            words.extend(of_enum.chain(rule["const"].as_str()).map(|word| format!("`{word}`")));
            let kind = |rule: &Value| rule["type"].as_str().or_else(|| rule["type"].as_array()?.first()?.as_str()).map(str::to_owned);
            match kind(rule).as_deref() {
                _ if rule.get("const").is_some() || rule.get("enum").is_some() => {}
                Some("array") => words.push(format!("list of {}", self.takes(&rule["items"]))),
                Some("object") if rule.get("properties").is_some() => words.push("map".to_owned()),
                Some("object") => words.push(format!("map of names to {}", self.takes(&rule["additionalProperties"]))),
                Some("integer") => words.push("whole number".to_owned()),
                Some("number") => words.push(format!("number from {} to {}", rule["minimum"], rule["maximum"])),
                Some("boolean") => words.push("`true`, `false`".to_owned()),
                Some("string") => words.push(rule["format"].as_str().map_or("text", described).to_owned()),
                _ => {}
            }
        }
        words.dedup();
        words.join(" or ")
    }

    /// Rows for all keys of a map, those of maps in it too.
    fn rows(&self, rule: &Value, prefix: &str, out: &mut String) {
        let required: Vec<_> = rule["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, inner) in rule["properties"].as_object().unwrap_or(&Map::new()) {
            let path = format!("{prefix}{key}");
            let default = match &inner["default"] {
                Value::Null if required.contains(&key.as_str()) => "required".to_owned(),
                Value::Null | Value::Object(_) => String::new(),
                Value::Array(items) if items.is_empty() => "`[]`".to_owned(),
                Value::Array(_) => String::new(),
                Value::String(text) => format!("`{text}`"),
                other => format!("`{other}`"),
            };
            let told = inner["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
            writeln!(out, "| `{path}` | {} | {default} | {told} |", self.takes(inner)).unwrap();
            self.within(inner, &path, out);
        }
    }

    /// Rows for what is inside of a value.
    fn within(&self, rule: &Value, path: &str, out: &mut String) {
        for rule in self.alternatives(rule) {
            if rule.get("properties").is_some() {
                self.rows(rule, &format!("{path}."), out);
            } else if rule["type"] == "array" {
                self.within(&rule["items"], &format!("{path}[]"), out);
            } else if rule["additionalProperties"].is_object() {
                self.within(&rule["additionalProperties"], &format!("{path}.NAME"), out);
            }
        }
    }
}

fn described(format: &str) -> &str {
    match format {
        "duration" => "duration",
        "size" => "size",
        "percent" => "percentage",
        "socket-address" => "address and port",
        "host-port" => "host and port",
        "http-url" => "URL",
        "path" | "new-path" => "path of a file",
        "network" => "address or network",
        "details" => "`off`, `on_mint` or a duration",
        "file-mode" => "file mode in octal",
        "header-name" => "name of a header",
        "header-template" => "header value with `{...}`",
        "absolute-path" => "path",
        "path-regex" => "regular expression",
        "host-pattern" => "host",
        "method" => "method",
        _ => "text",
    }
}

const CONFIGURATION: &str = "# Configuration reference

For whoever writes `bearerd.yaml`. Made from the schema of the program (`bearerd config schema`); `make references` writes it anew.

One YAML file. Only `routes` must be there, and what they refer to. Unknown keys are mistakes. Durations are `500ms`, `30s`, `5m`, `24h`; sizes `512B`, `64KiB`, `1MiB`.
`${NAME}` in a value is the environment variable of that name, `$$` is a dollar. `BEARERD__SECTION__KEY` in the environment sets a single value outside of lists.
`bearerd check` says what is wrong and where, `bearerd config show` prints every value and where it comes from.

In the tables `[]` stands for each item of a list, `NAME` for a name of your choice.
";

#[test]
fn the_configuration_reference_is_that_of_the_schema() {
    let schema = Schema(config::schema());
    let mut made = CONFIGURATION.to_owned();
    for (section, rule) in schema.0["properties"].as_object().unwrap() {
        let told = rule["description"].as_str().unwrap_or_default();
        write!(made, "\n## `{section}`\n\n{told}\n").unwrap();
        let table = "\n| key | takes | default | what it is |\n|---|---|---|---|\n";
        let mut rows = String::new();
        let path = match schema.alternatives(rule)[..] {
            [one] if one["type"] == "array" => "[].",
            [one] if one["additionalProperties"].is_object() => "NAME.",
            _ => "",
        };
        for one in schema.alternatives(rule) {
            let inner = match path {
                "[]." => &one["items"],
                "NAME." => &one["additionalProperties"],
                _ => one,
            };
            let kinds = schema.alternatives(inner);
            for kind in &kinds {
                if kinds.len() > 1 {
                    let name = kind["properties"]["kind"]["const"].as_str().unwrap_or_default();
                    write!(rows, "\n### `kind: {name}`\n\n{}\n{table}", kind["description"].as_str().unwrap_or_default()).unwrap();
                }
                schema.rows(kind, path, &mut rows);
            }
        }
        match rows.as_str() {
            "" => write!(made, "\nTakes {}. Default: `{}`.\n", schema.takes(rule), rule["default"].as_str().unwrap_or("none")).unwrap(),
            rows if rows.starts_with("\n###") => made.push_str(rows),
            rows => write!(made, "{table}{rows}").unwrap(),
        }
    }
    settle("configuration.md", &made);
}

const METRICS: &str = "# Metrics reference

For whoever reads dashboards and writes alerts. Made from the program; `make references` writes it anew. `GET /metrics` on the metrics listener has them all, for
Prometheus; that of `bearerd webhook` has `bearerd_webhook_*` and the ends of its certificate. Never a key, a subject or a path as a label: the number of series depends on the configuration alone. `reason` is a word of the
[table of refusals](inbound.md), `code` the exact status. Alerts are in `deploy/prometheus/rules.yaml`, what to do about them in the [runbook](runbook.md).

| family | kind | labels | what it is |
|---|---|---|---|
";

/// Names, help texts and labels as the sources have them: `/metrics` shows only the families that have a series.
fn families() -> Vec<(String, String, String)> {
    // Labels that stand here are said once for all families of a file.
    let sources = [
        ("telemetry/metrics", "", ""),
        ("issuer/metrics", "issuer_", ""),
        ("proxy/upstream/gauges", "", "`upstream`"),
        ("tls/expiry", "", "`file`"),
        ("kubernetes/webhook/metrics", "webhook_", ""),
    ];
    let named = regex::Regex::new(r#"\(\s*"([a-z_]+)",\s*"((?:[^"\\]|\\.)*)",?\s*\)?,?\s*(?:&\[([^\]]*)\])?"#).unwrap();
    let mut found = Vec::new();
    for (source, prefix, labels) in sources {
        let text = std::fs::read_to_string(root().join("src").join(source).with_extension("rs")).unwrap();
        for family in named.captures_iter(text.split("#[cfg(test)]").next().unwrap()) {
            let own = family.get(3).map_or(String::new(), |labels| labels.as_str().replace('"', "`"));
            let labels = if labels.is_empty() { own } else { labels.to_owned() };
            found.push((format!("{prefix}{}", &family[1]), family[2].to_owned(), labels));
        }
    }
    found
}

#[tokio::test]
async fn the_metrics_reference_has_every_family() {
    let families = families();
    let mut made = METRICS.to_owned();
    for (name, help, labels) in &families {
        let kind = match name.as_str() {
            name if name.ends_with("_total") => "counter",
            name if name.ends_with("duration_seconds") => "histogram",
            _ => "gauge",
        };
        writeln!(made, "| `bearerd_{name}` | {kind} | {labels} | {} |", help.replace('|', "\\|")).unwrap();
    }
    settle("metrics.md", &made);

    // What a process that has done something shows is in there, and of that kind.
    let stage = Stage::with_routes("  - { upstream: app }").await;
    for key in ["a", "a"] {
        assert_eq!(get(stage.bearerd.address(), "/", &[("x-api-key", key)]).await.status, 200);
    }
    let shown = get(Bearerd::addresses(&stage.bearerd).metrics, "/metrics", &[]).await.body.text();
    let shown: Vec<_> = shown.lines().filter_map(|line| line.strip_prefix("# TYPE bearerd_")).collect();
    assert!(shown.len() > 20, "{shown:?}");
    for line in shown {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(made.contains(&format!("| `bearerd_{name}` | {kind} |")), "{line} is in the reference");
    }
}
