//! What pods request and may take, against the figures of the benchmarks as the guide gives them.

use serde_json::Value;

use super::{bearerd_of, built, list, of_kind, rendered, root, run};

const MIB: f64 = 1024.0 * 1024.0;

/// The measured figures of the guide's section on sizing.
struct Figures {
    /// Bytes once the first request is answered, and more under load.
    start: f64,
    load: f64,
    /// Bytes of each token, and of each connection.
    token: f64,
    connection: f64,
    /// Seconds of the processor for a warm request.
    request: f64,
}

/// The rows of the tables that stand under this heading of the guide, cell by cell.
fn rows() -> Vec<Vec<String>> {
    let guide = std::fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    let section = guide.split("\n## Sizing\n").nth(1).unwrap();
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    section.lines().filter(|line| line.starts_with("| ")).map(cells).collect()
}

fn number(text: &str) -> f64 {
    text.split(' ').next().unwrap().replace(',', "").parse().unwrap_or_else(|_| panic!("{text}"))
}

fn amount(text: &str) -> f64 {
    let unit = [("Mi", MIB), ("Gi", 1024.0 * MIB), ("m", 0.001)].into_iter().find(|(unit, _)| text.ends_with(unit));
    unit.map_or_else(|| number(text), |(unit, size)| number(text.trim_end_matches(unit)) * size)
}

fn figures() -> Figures {
    let rows = rows();
    let figure = |name: &str| number(&rows.iter().find(|row| row[0].starts_with(name)).unwrap_or_else(|| panic!("{name}"))[1]);
    Figures {
        start: figure("resident, after the first request") * MIB,
        load: figure("more under load") * MIB,
        token: figure("for each token") * 1024.0,
        connection: figure("for each open connection") * 1024.0,
        request: figure("processor, for a warm request") / 1e6,
    }
}

impl Figures {
    fn memory(&self, tokens: f64, connections: f64) -> f64 {
        self.start + self.load + tokens * self.token + connections * self.connection
    }
}

/// The figures of the guide are not better than those that the benchmarks have left.
#[test]
fn the_guides_figures_are_those_of_the_benchmarks() {
    let figures = figures();
    let read = |name: &str| std::fs::read_to_string(root().join("benches").join(name)).unwrap();
    let results = read("results/peers-profile-guided.md");
    let own: Vec<&str> = results.lines().find(|line| line.starts_with("| bearerd |")).unwrap().split('|').map(str::trim).collect();
    let (idle, loaded) = own[own.len() - 2].split_once(", ").unwrap();
    assert!((number(loaded) - number(idle)) * MIB <= figures.load, "{idle}, {loaded}");
    assert!(number(own[2]) / 1e6 <= figures.request, "{own:?}");

    let grown = read("README.md");
    let keys: Vec<&str> = grown.lines().find(|line| line.starts_with("| 10,000 | 27")).unwrap().split('|').map(str::trim).collect();
    assert!(number(keys[2]) / 1e6 < figures.request + 0.5e-6, "{keys:?}");
    let all = grown.split(" requests, no error, ").nth(1).unwrap();
    assert!((number(all) * MIB - figures.memory(1_000.0, 0.0)) / 10_000.0 <= figures.connection, "{all}");
}

#[test]
fn the_guides_rows_follow_from_its_figures() {
    let (figures, rows) = (figures(), rows());
    let mut seen = 0;
    for row in rows.iter().filter(|row| row.len() == 6 && row[4].ends_with("Mi")) {
        let (tokens, connections) = (number(&row[0]), number(&row[1]));
        let (usual, most) = (figures.memory(tokens, connections / 10.0), 1.25 * figures.memory(tokens, connections));
        assert_eq!(((usual / MIB).round(), (most / MIB).round()), (number(&row[2]), number(&row[3])), "{row:?}");
        assert!(usual <= amount(&row[4]) && most <= amount(&row[5]), "{row:?}");
        seen += 1;
    }
    for row in rows.iter().filter(|row| row.len() == 3 && row[0].ends_with('m') && row[0].len() < 5) {
        let requests = amount(&row[0]) / figures.request;
        assert!((requests - number(&row[1])).abs() < 5.0, "{row:?}: {requests}");
        seen += 1;
    }
    assert_eq!(seen, 6);
}

/// Who has which row.
fn is_of_a_row(what: &str, resources: &Value) {
    let rows = rows();
    let has = |place: usize, value: &Value| rows.iter().any(|row| row.get(place).is_some_and(|cell| value == cell.as_str()));
    assert!(has(4, &resources["requests"]["memory"]) && has(5, &resources["limits"]["memory"]), "{what}: {resources}");
    assert!(has(0, &resources["requests"]["cpu"]), "{what}: {resources}");
    assert!(resources["limits"].get("cpu").is_none(), "{what}: a throttled proxy makes every request wait");
}

fn shipped(what: &str, documents: &[Value]) {
    for deployment in of_kind(documents, "Deployment") {
        let bearerd = bearerd_of(&deployment["spec"]["template"]["spec"]);
        if bearerd["args"][0] != "webhook" {
            is_of_a_row(what, &bearerd["resources"]);
        }
    }
}

#[test]
fn shipped_and_injected_pods_have_rows_of_the_guide() {
    built(shipped);
    rendered(|values, documents, _| shipped(values.to_str().unwrap(), documents));
    let mut inject = std::process::Command::new(env!("CARGO_BIN_EXE_bearerd"));
    let injected = run(inject.args(["inject", "-f"]).arg(root().join("tests/it/manifests/deployment.yaml")));
    let documents = super::documents(&injected);
    let pod = &of_kind(&documents, "Deployment").next().unwrap()["spec"]["template"]["spec"];
    is_of_a_row("injected", &list(&pod["initContainers"])[0]["resources"]);
}
