//! Manifests in odd spelling: either bearerd is put in and all else stays as it is, or they are refused.

use bearerd::kubernetes::{Defaults, manifest};
use proptest::prelude::*;
use serde_json::Value;

const IMAGE: &str = "registry.example.com/bearerd:0.1.0";

fn in_process(text: &str) -> Result<String, String> {
    let defaults = Defaults { image: IMAGE.to_owned(), token_service: None };
    let told = |errors: Vec<manifest::Error>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    manifest::inject(text, &defaults).map(|injected| injected.text).map_err(told)
}

/// A Pod with these lines in front of, in and behind what bearerd changes.
fn around(odd: &str) -> String {
    let indented = |by: &str| {
        odd.split_inclusive('\n')
            .map(|line| if line.trim().is_empty() { line.to_owned() } else { format!("{by}{line}") })
            .collect::<String>()
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n{0}  annotations:\n    bearerd.dev/inject: \"true\"\n    bearerd.dev/config: c\nspec:\n  # first\n{0}  containers:\n    - name: a\n{1}  # last\n  restartPolicy: Always\n",
        indented("  "),
        indented("      ")
    )
}

#[test]
fn odd_spelling_around_what_is_changed_stays_as_it_is() {
    for odd in [
        "odd: &a { x: [1, *b0 ] }\n".replace("*b0", "2").as_str(),
        "odd: &a\n  x: 1\nagain: *a\n",
        "odd:\t1\t# tabs\t\n",
        "# comments\n\n  # everywhere\n#\nodd: 1 # here\n#too\n",
        "odd: |\n  ---\n  kind: Pod\n  ---\n  # no comment\n",
        "odd: >+2\n    folded\n\n   ...\n\n",
        "odd: |-\n  {{ not a template }}\n",
        "odd: \"{{ .Values.quoted }}\"\nother: '{{ `raw` }}'\n",
        "odd: ${NAME}\nother: $(NAME)\n",
        "odd: !!str 1\nother: !own {a: b}\nthird: !<tag:example.com,2000:x> y\n",
        "1: a number\ntrue: a yes\n~: nothing\n1.5e3: another\n",
        "odd: {a: {b: [c, {d: [e]}]}, \"f\":g, h: [\n  i,\n  j, ],\n  }\n",
        "\"odd\\u0041\": 'it''s'\n? plain\n: x\n",
        "odd: a plain\n  text of\n  several lines\n",
        "odd: \"a text\n\n  of several \\\n  lines\"\n",
        "odd: - # not a list\n".replace("- #", "'-' #").as_str(),
        "odd: 0o14\nother: 012\nthird: 1_000\nno: .inf\n",
        "odd: \u{e9}\u{1f600}\u{2028}x\n",
        "bearerd.dev/odd: not an annotation\n",
        &format!("odd: {}{}\n", "[".repeat(100), "]".repeat(100)),
        &(0..60).map(|depth| format!("{}odd{depth}:\n", " ".repeat(depth))).collect::<String>(),
    ] {
        for ending in ["\n", "\r\n"] {
            for beginning in ["", "\u{feff}", "%YAML 1.2\n---\n", "--- # a\n", "{}\n---\n"] {
                let text = format!("{beginning}{}", around(odd)).replace('\n', ending);
                let result = in_process(&text).unwrap_or_else(|error| panic!("{text}\n{error}"));
                let mut lines = result.split_inclusive('\n');
                for line in text.split_inclusive('\n') {
                    assert!(lines.any(|found| found == line), "{line:?} is gone or elsewhere in\n{result}");
                }
                assert_eq!(in_process(&result).as_ref(), Ok(&result), "again");
                let found: Vec<Value> = serde_saphyr::from_multiple(result.trim_start_matches('\u{feff}')).unwrap_or_default();
                let pod = found.last().map(|pod| &pod["spec"]["initContainers"][0]["name"]);
                assert!(pod.is_none_or(|name| name == "bearerd"), "{result}");
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let pod = around("");
    for (odd, told) in [
        ("  containers: []\n", "the key is there twice"),
        ("  ? [a]\n  : b\n", "a key must be text"),
        ("  ? {a: b}\n  : c\n", "a key must be text"),
        ("\todd: 1\n", "tab"),
        ("  odd: *nothing\n", "not valid YAML"),
        ("  odd: [\n", "not valid YAML"),
        ("  <<: 1\n", "only a map can be merged into a map"),
        ("  odd: {{ .Values.odd }}\n", "`{{` begins a template"),
        ("  {{- with .Values.odd }}\n", "`{{` begins a template"),
        ("{{ include \"odd\" . | nindent 2 }}\n", "`{{` begins a template"),
    ] {
        let text = format!("{pod}{odd}");
        let found = in_process(&text).unwrap_err();
        let line: usize = found.split(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{found}"));
        assert!(found.contains(told) && line >= 12 && line <= 1 + text.lines().count(), "{odd}: {found}");
    }
    let deep = format!("{pod}  odd: {}\n", "[".repeat(1000));
    assert!(in_process(&deep).unwrap_err().contains("not valid YAML"));
}

/// A document that has nothing to do with bearerd, in odd spelling.
fn other() -> impl Strategy<Value = String> {
    let soup = "[ \\-:a-c\\[\\]{}#&*!|>'\"%@`?,~<0-9.\t\n\ré]{0,40}";
    prop_oneof![Just("a: [1, {b: c}] # x\n".to_owned()), Just("- |\n  x\n\n".to_owned()), Just("\"q\": 'x'\r\n".to_owned()), soup]
}

/// A Pod that asks for a sidecar, in odd spelling.
fn asking() -> impl Strategy<Value = String> {
    let comment = || prop_oneof![Just(""), Just(" # c"), Just("\t# c"), Just(" &a"), Just(" !t"), Just("   ")];
    let between = || prop_oneof![Just(""), Just("\n"), Just("# c\n"), Just("          # c\n"), Just("  \n"), Just("\t\n")];
    let indent = || prop_oneof![Just("  "), Just("    "), Just(" ")];
    let list = prop_oneof![
        Just(""),
        Just("volumes:\n"),
        Just("volumes: []\n"),
        Just("volumes: [\n]\n"),
        Just("volumes: ~ # c\n"),
        Just("volumes: [ {name: v, emptyDir: {}} ]\n"),
        Just("volumes:\n- name: v\n"),
        Just("volumes:\n# c\n   - &b name: v\n"),
        Just("volumes:\n  -\n    name: v\n"),
        Just("volumes: !!seq\n  - name: v\n"),
        Just("volumes: &v\n  - name: v\n"),
        Just("? volumes\n: - name: v\n"),
        Just("'volumes' :\n- {name: v}\n"),
        Just("initContainers: {}\n"),
        Just("terminationGracePeriodSeconds:\n"),
        Just("terminationGracePeriodSeconds : 40 # c\n"),
    ];
    let annotations = prop_oneof![
        Just("{bearerd.dev/inject: 'true', bearerd.dev/config: c}"),
        Just("{ \"bearerd.dev/inject\":\"true\",\n        \"bearerd.dev/config\":\"c\" }"),
        Just("\n        bearerd.dev/inject: \"true\"\n        bearerd.dev/config: c"),
        Just(" &x\n        bearerd.dev/inject: >-\n          true\n        'bearerd.dev/config': c # c"),
    ];
    let end = prop_oneof![Just(""), Just("\n"), Just("\n...\n"), Just("\n\n\n")];
    let parts = (comment(), between(), indent(), list, annotations, end, any::<bool>());
    parts.prop_map(|(comment, between, indent, list, annotations, end, crlf)| {
        let list: String = list.lines().map(|line| format!("{indent}{line}\n")).collect();
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:{comment}\n    annotations: {annotations}\nspec:{comment}\n{between}{list}{indent}containers: [{{name: a}}]{end}"
        );
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

proptest! {
    #[test]
    fn odd_manifests_stay_whole(before in other(), asking in asking(), after in other()) {
        let separator = if asking.ends_with('\n') || asking.is_empty() { "---\n" } else { "\n---\n" };
        let head = if before.ends_with('\n') || before.is_empty() { before } else { format!("{before}\n") };
        let head = if head.is_empty() { head } else { format!("{head}---\n") };
        let text = format!("{head}{asking}{separator}{after}");
        if let Ok(result) = in_process(&text) {
            // What went in is still there, before and after, and the result is what it says of itself.
            prop_assert!(result.starts_with(&head) && result.ends_with(&format!("{separator}{after}")), "{result}");
            prop_assert_eq!(in_process(&result), Ok(result.clone()));
            let found: Vec<Value> = serde_saphyr::from_multiple(&asking).unwrap();
            prop_assert!(found[0]["spec"]["initContainers"].is_null(), "{}", asking);
            let own = &result[head.len()..result.len() - separator.len() - after.len()];
            let found: Vec<Value> = serde_saphyr::from_multiple(own).unwrap();
            prop_assert_eq!(&found[0]["spec"]["initContainers"][0]["name"], "bearerd");
        }
    }

    #[test]
    fn most_odd_manifests_can_be_changed(asking in asking()) {
        let is_odd = ["? volumes", "initContainers: {}", "\t"].iter().any(|odd| asking.contains(odd));
        let result = in_process(&asking);
        prop_assert!(is_odd || result.is_ok(), "{asking}\n{result:?}");
    }

    #[test]
    fn no_text_panics_or_changes_unasked(text in "[ \\-:a-c\\[\\]{}#&*!|>'\"%@`?,~<0-9.\t\n\r\u{feff}é$]{0,120}") {
        if let Ok(result) = in_process(&text) {
            prop_assert_eq!(result, text);
        }
    }
}
