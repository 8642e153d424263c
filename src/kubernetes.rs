//! bearerd in Kubernetes pods: what a pod's annotations ask for is put into manifests (`bearerd inject`) and into pods that are admitted
//! (`bearerd webhook`), by the same list of changes.
//!
//! An object becomes a list of [`edit::Edit`]s: [`workload`] finds the pods in it, [`annotations`] reads what is asked for, [`pod`] looks whether it fits.
//! [`manifest`] carries them out on the text, [`webhook`] tells them as a JSON Patch. Nothing here calls Kubernetes.

pub mod annotations;
pub mod edit;
pub mod fault;
pub mod generated;
pub mod manifest;
pub mod pod;
pub mod resources;
pub mod sidecar;
pub mod webhook;
pub mod workload;

use serde_json::Value;
use url::Url;

use edit::{Edit, Path};
use fault::{Error, Fault};
use workload::{Workload, workloads};

/// What counts where a pod's annotations say nothing.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The image of the sidecar.
    pub image: String,
    /// Where tokens come from, for configurations that are generated.
    pub token_service: Option<Url>,
}

/// What is to be changed in an object.
#[derive(Debug, Default)]
pub struct Changes {
    /// In this order, from the object's root.
    pub edits: Vec<Edit>,
    /// Labels for pods, as well; where a text has no place for one, its owner is told.
    pub labels: Vec<Edit>,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// What is to be changed in an object, so that every pod in it that asks for a sidecar has one.
///
/// # Errors
/// A mistake for each workload that has one.
pub fn changes(object: &Value, defaults: &Defaults) -> Result<Changes, Vec<Error>> {
    let mut changes = Changes::default();
    let mut errors = Vec::new();
    for workload in workloads(object) {
        match of(object, &workload, defaults) {
            Ok(mut found) => {
                changes.edits.append(&mut found.edits);
                changes.labels.append(&mut found.labels);
                changes.warnings.append(&mut found.warnings);
            }
            Err((at, fault)) => errors.push(Error { object: workload.object, at: workload.place.join(&at), fault }),
        }
    }
    if errors.is_empty() { Ok(changes) } else { Err(errors) }
}

fn of(object: &Value, workload: &Workload, defaults: &Defaults) -> Result<Changes, (Path, Fault)> {
    let Workload { object: name, place, template, ends } = workload;
    let Some(own) = place.find(object) else { return Ok(Changes::default()) };
    let Some(found) = template.find(own) else { return Ok(Changes::default()) };
    let injection = pod::injection(found, *ends, defaults).map_err(|(at, fault)| (template.join(&at), fault))?;
    let annotations =
        |of: &'_ Value| Path::of(&["metadata", "annotations"]).find(of).and_then(Value::as_object).cloned().unwrap_or_default();
    // A controller's own annotations say nothing to its pods; tools that write them everywhere are fine.
    if let (Some(first), None) = (annotations::first_own(&annotations(own)), annotations::first_own(&annotations(found))) {
        let place = template.join(&Path::of(&["metadata", "annotations"]));
        return Err((Path::of(&["metadata", "annotations"]).key(first), Fault::Misplaced { place }));
    }
    let outer = place.join(template);
    let edits = injection.edits.into_iter().map(|edit| edit.within(&outer)).collect();
    let labels = injection.label.into_iter().map(|label| label.within(&outer)).collect();
    Ok(Changes { edits, labels, warnings: injection.warnings.into_iter().map(|warning| format!("{name}: {warning}")).collect() })
}
