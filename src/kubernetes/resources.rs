//! What a container may take, as the annotation `bearerd.dev/resources` says it.

use serde_json::{Value, json};

/// What the sidecar gets unless the annotation says otherwise: `docs/kubernetes.md`, Sizing, says what for.
pub fn default() -> Value {
    json!({ "requests": { "cpu": "25m", "memory": "64Mi" }, "limits": { "memory": "128Mi" } })
}

/// Reads YAML or JSON: `requests` and `limits`, each with amounts.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Value, String> {
    let value: Value = serde_saphyr::from_str(text).map_err(|_| "it is neither YAML nor JSON".to_owned())?;
    let Some(sections) = value.as_object().filter(|sections| !sections.is_empty()) else {
        return Err("it is not a map of `requests` and `limits`".to_owned());
    };
    for (section, amounts) in sections {
        if !matches!(section.as_str(), "requests" | "limits") {
            return Err(format!("`{section}` is neither `requests` nor `limits`"));
        }
        let amounts = amounts.as_object().ok_or_else(|| format!("`{section}` is not a map of amounts"))?;
        for (name, amount) in amounts {
            let fits = amount.is_number() || amount.as_str().is_some_and(is_quantity);
            if !fits {
                return Err(format!("`{section}.{name}` is not an amount"));
            }
        }
    }
    Ok(value)
}

/// Whether Kubernetes takes it for an amount: a number, and perhaps an exponent or a suffix.
fn is_quantity(text: &str) -> bool {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let exponent = |text: &str| {
        let digits = text.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let known = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    number.parse::<f64>().is_ok() && (known.contains(&suffix) || exponent(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_and_json_are_read() {
        let expected = json!({ "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "cpu": 1 } });
        assert_eq!(parse("requests: { cpu: 100m, memory: 64Mi }\nlimits: { cpu: 1 }").unwrap(), expected);
        assert_eq!(parse(&expected.to_string()).unwrap(), expected);
        parse(&default().to_string()).unwrap();
    }

    #[test]
    fn what_is_no_amount_is_named() {
        for (text, told) in [
            ("", "not a map"),
            ("{}", "not a map"),
            ("[1]", "not a map"),
            ("{", "neither YAML nor JSON"),
            ("{ request: { cpu: 1 } }", "`request` is neither"),
            ("{ limits: 1 }", "`limits` is not a map"),
            ("{ limits: { memory: 64MB } }", "`limits.memory` is not an amount"),
            ("{ limits: { memory: [] } }", "`limits.memory` is not an amount"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        for (text, fits) in
            [("1e3", true), ("1.5Gi", true), ("5", true), ("1e", false), ("Mi", false), ("", false), ("-1", false), ("1.2.3", false)]
        {
            assert_eq!(is_quantity(text), fits, "{text}");
        }
    }
}
