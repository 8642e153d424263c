//! What a pod needs in order to have the sidecar: that nothing is in its way, and what is to be changed.

use serde_json::{Value, json};

use super::Defaults;
use super::annotations::{self, ADMIN_PORT, Asked, GENERATED, INJECTED, METRICS_LABEL, METRICS_PORT, Mode, STATUS, Wanted};
use super::edit::{Edit, Path};
use super::fault::Fault;
use super::generated::configuration;
use super::sidecar::{self, CALLERS, METRICS, NAME};
use crate::config::quoted;

/// The time that Kubernetes gives a pod to end unless it says otherwise, in seconds.
const DEFAULT_GRACE: i64 = 30;
/// bearerd's own end in seconds: the defaults of `shutdown.delay` (5) and `shutdown.drain_timeout` (20), and a little more.
const OWN_END: i64 = 30;

/// Which container `kubectl logs` and `exec` take.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What is to be changed in a pod, and what its owner should know.
#[derive(Debug, Default)]
pub struct Injection {
    /// In this order. None where nothing is asked for, or it is there already.
    pub edits: Vec<Edit>,
    /// The label by which its metrics are found, where it is not there.
    pub label: Option<Edit>,
    /// Whole sentences.
    pub warnings: Vec<String>,
}

/// Looks at a pod, or at what pods are made from: something with `metadata` and `spec`. `ends` says whether its pods end by themselves.
pub fn injection(template: &Value, ends: bool, defaults: &Defaults) -> Result<Injection, (Path, Fault)> {
    let annotated = Path::of(&["metadata", "annotations"]);
    let Some(annotations) = annotated.find(template).and_then(Value::as_object) else { return Ok(Injection::default()) };
    let asked = annotations::read(annotations, &annotated, defaults)?;
    if asked == Asked::Nothing {
        return Ok(Injection::default());
    }
    let pod = Pod { spec: template.get("spec").unwrap_or(&Value::Null), place: Path::of(&["spec"]) };
    match asked {
        Asked::Nothing => Ok(Injection::default()),
        Asked::Injected if pod.containers()?.any(|(_, container)| name_of(container) == NAME) => Ok(Injection::default()),
        Asked::Injected => Err((annotated.key(STATUS), Fault::Untrue)),
        Asked::Sidecar(wanted) => {
            pod.has_room_for(&wanted)?;
            let mut edits = vec![set(&annotated, STATUS, json!(INJECTED))];
            if let Some(text) = configuration(&wanted, ends) {
                edits.push(set(&annotated, GENERATED, json!(text)));
            }
            if !wanted.native && !annotations.contains_key(DEFAULT_CONTAINER) {
                edits.extend(pod.first_name()?.map(|name| set(&annotated, DEFAULT_CONTAINER, json!(name))));
            }
            edits.extend(pod.edits(&wanted, ends)?);
            Ok(Injection { edits, label: label(template)?, warnings: pod.warnings(&wanted, ends)? })
        }
    }
}

/// The metrics listener is reachable in every pod that is injected; a label that is there, whatever it says, is its owner's.
fn label(template: &Value) -> Result<Option<Edit>, (Path, Fault)> {
    let place = Path::of(&["metadata", "labels"]);
    match place.find(template) {
        None | Some(Value::Null) => Ok(Some(set(&Path::of(&["metadata"]), "labels", json!({ METRICS_LABEL: "true" })))),
        Some(Value::Object(labels)) if labels.contains_key(METRICS_LABEL) => Ok(None),
        Some(Value::Object(_)) => Ok(Some(set(&place, METRICS_LABEL, json!("true")))),
        Some(_) => Err((place, Fault::Malformed("it is not a map"))),
    }
}

/// A pod's `spec`.
struct Pod<'a> {
    spec: &'a Value,
    place: Path,
}

impl<'a> Pod<'a> {
    fn list(&self, key: &str) -> Result<&'a [Value], (Path, Fault)> {
        match self.spec.get(key) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err((self.place.key(key), Fault::Malformed("it is not a list"))),
        }
    }

    /// All containers with their places, those that run first before the others.
    fn containers(&self) -> Result<impl Iterator<Item = (Path, &'a Value)>, (Path, Fault)> {
        let placed = |key: &'static str| {
            let place = self.place.key(key);
            Ok(self.list(key)?.iter().enumerate().map(move |(index, container)| (place.item(index), container)))
        };
        Ok(placed("initContainers")?.chain(placed("containers")?))
    }

    /// Nothing has the names and ports that the sidecar needs: all containers share the pod's network.
    fn has_room_for(&self, wanted: &Wanted) -> Result<(), (Path, Fault)> {
        if self.list("containers")?.is_empty() {
            return Err((self.place.key("containers"), Fault::Malformed("the pod has no containers")));
        }
        self.is_of_its_own()?;
        for (place, container) in self.containers()? {
            if name_of(container) == NAME {
                let help = "rename the container, or remove it where it is a sidecar put in by hand".to_owned();
                return Err((place.key("name"), Fault::Taken { what: format!("the name `{NAME}`"), help }));
            }
            for (index, port) in container.get("ports").and_then(Value::as_array).into_iter().flatten().enumerate() {
                let place = place.key("ports").item(index);
                if let Some(name) = port.get("name").and_then(Value::as_str).filter(|name| [CALLERS, METRICS].contains(name)) {
                    let help = "give the port another name".to_owned();
                    return Err((place.key("name"), Fault::Taken { what: format!("the port name `{name}`"), help }));
                }
                let is_tcp = port.get("protocol").and_then(Value::as_str).is_none_or(|protocol| protocol == "TCP");
                let number = port.get("containerPort").and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
                if let Some(number) = number.filter(|number| is_tcp && [wanted.port, ADMIN_PORT, METRICS_PORT].contains(number)) {
                    let fault = Fault::Taken { what: format!("port {number}"), help: other_port(number, wanted) };
                    return Err((place.key("containerPort"), fault));
                }
            }
        }
        let ours = sidecar::volumes(wanted);
        for (index, volume) in self.list("volumes")?.iter().enumerate() {
            if ours.iter().any(|own| name_of(own) == name_of(volume)) {
                let what = format!("the volume name {}", quoted(name_of(volume)));
                let place = self.place.key("volumes").item(index).key("name");
                return Err((place, Fault::Taken { what, help: "give the volume another name".to_owned() }));
            }
        }
        Ok(())
    }

    /// It has a network of its own, and runs what the image has.
    fn is_of_its_own(&self) -> Result<(), (Path, Fault)> {
        if self.spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
            return Err((self.place.key("hostNetwork"), Fault::Shared));
        }
        let system = Path::of(&["os", "name"]);
        if system.find(self.spec).is_some_and(|name| name == "windows") {
            return Err((self.place.join(&system), Fault::Malformed("bearerd's image is for Linux")));
        }
        Ok(())
    }

    fn edits(&self, wanted: &Wanted, ends: bool) -> Result<Vec<Edit>, (Path, Fault)> {
        let mut edits = vec![set(&self.place, "terminationGracePeriodSeconds", json!(self.grace(wanted)?))];
        let list = if wanted.native { "initContainers" } else { "containers" };
        edits.push(self.put_first(list, vec![sidecar::container(wanted, ends)])?);
        edits.push(self.put_first("volumes", sidecar::volumes(wanted))?);
        Ok(edits)
    }

    fn put_first(&self, key: &str, items: Vec<Value>) -> Result<Edit, (Path, Fault)> {
        if self.list(key)?.is_empty() {
            return Ok(set(&self.place, key, items.into()));
        }
        Ok(Edit::Prepend { list: self.place.key(key), items })
    }

    /// A native sidecar ends after the app has, which may take all the time that the pod has so far; an ordinary container ends beside it.
    fn grace(&self, wanted: &Wanted) -> Result<i64, (Path, Fault)> {
        let key = "terminationGracePeriodSeconds";
        let grace = match self.spec.get(key) {
            None | Some(Value::Null) => DEFAULT_GRACE,
            Some(given) => {
                let seconds = given.as_i64().filter(|seconds| *seconds >= 0);
                seconds.ok_or_else(|| (self.place.key(key), Fault::Malformed("it is not a number of seconds")))?
            }
        };
        Ok(if wanted.native { grace.saturating_add(OWN_END) } else { grace.max(OWN_END) })
    }

    fn first_name(&self) -> Result<Option<&'a str>, (Path, Fault)> {
        Ok(self.list("containers")?.first().map(name_of))
    }

    fn warnings(&self, wanted: &Wanted, ends: bool) -> Result<Vec<String>, (Path, Fault)> {
        let mut warnings = Vec::new();
        let stops_at_once = |container: &&Value| container.get("lifecycle").and_then(|lifecycle| lifecycle.get("preStop")).is_none();
        if wanted.mode == Mode::Inbound
            && !ends
            && let Some(container) = self.list("containers")?.iter().find(stops_at_once)
        {
            warnings.push(format!(
                "container {} has no `lifecycle.preStop`: it stops while requests still come in; a sleep of 5 s there lets its endpoints leave first",
                quoted(name_of(container))
            ));
        }
        if self.spec.get("shareProcessNamespace").and_then(Value::as_bool) == Some(true) {
            warnings.push(
                "with `shareProcessNamespace` every container that runs as root, or as bearerd's user (65532), can read bearerd's keys and tokens".to_owned(),
            );
        }
        if ends && !wanted.native {
            warnings.push(format!(
                "without `{}` bearerd goes on when the app has ended, and so does the Job: end it with `POST http://127.0.0.1:{ADMIN_PORT}/api/quit` and the header `X-Bearerd-Admin: 1`",
                "bearerd.dev/native: \"true\""
            ));
        }
        Ok(warnings)
    }
}

fn other_port(number: u16, wanted: &Wanted) -> String {
    if number == wanted.port {
        "give bearerd another one with `bearerd.dev/port`, and in the configuration where you wrote one, or move the app's".to_owned()
    } else {
        "bearerd's admin and metrics listeners have 9901 and 9902: move the app's".to_owned()
    }
}

fn name_of(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn set(map: &Path, key: &str, value: Value) -> Edit {
    Edit::Set { map: map.clone(), key: key.to_owned(), value }
}
