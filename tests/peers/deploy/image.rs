//! The image, as it is built without an engine, and as it runs.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{list, peer, root, run};

/// Nothing where the bill of materials is valid.
const VALIDATE_BILL: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
";

#[test]
fn the_image_runs_as_a_user_without_rights_on_a_read_only_root() {
    let folder = tempfile::tempdir().unwrap();
    // The binary under test, which has no optimisation: its size says nothing.
    let mut build = Command::new(root().join("deploy/image/build.sh"));
    run(build.arg(env!("CARGO_BIN_EXE_bearerd")).arg(folder.path()).env("IMAGE_LIMIT_MIB", "200"));
    let layout = format!("{}/oci:{}", folder.path().display(), env!("CARGO_PKG_VERSION"));
    let printed = run(Command::new(root().join("deploy/image/check.py")).arg(layout));
    assert!(printed.contains("ends with 0"), "{printed}");

    let bill = folder.path().join("root/usr/share/doc/bearerd/sbom.cdx.json");
    run(Command::new(peer("sbom-venv/bin/python")).args(["-c", VALIDATE_BILL]).arg(&bill));
    let bill: Value = serde_json::from_str(&fs::read_to_string(bill).unwrap()).unwrap();
    let names: BTreeSet<&str> = list(&bill["components"]).iter().map(|component| component["name"].as_str().unwrap()).collect();
    for name in ["pingora-core", "tokio", "rustls", "libc6"] {
        assert!(names.contains(name), "{name}");
    }
    for name in ["criterion", "proptest", "serde_derive"] {
        assert!(!names.contains(name), "{name} is not in the binary");
    }
}

#[test]
fn both_ways_to_the_image_say_the_same_of_it() {
    let read = |path: &str| fs::read_to_string(root().join("deploy/image").join(path)).unwrap();
    let (dockerfile, script) = (read("Dockerfile"), read("build.sh"));
    assert!(dockerfile.contains("deploy/image/root.sh") && script.contains("deploy/image/root.sh"));
    for (there, here) in [
        ("USER 65532:65532", "--config.user 65532:65532"),
        ("EXPOSE 8080 9902", "--config.exposedports 8080/tcp --config.exposedports 9902/tcp"),
        (r#"ENTRYPOINT ["/usr/local/bin/bearerd"]"#, "--config.entrypoint /usr/local/bin/bearerd"),
        (r#"CMD ["run", "-c", "/etc/bearerd/bearerd.yaml"]"#, "--config.cmd run --config.cmd=-c --config.cmd /etc/bearerd/bearerd.yaml"),
    ] {
        assert!(dockerfile.contains(there) && script.contains(here), "{there}");
    }
    let labels = |text: &str| -> BTreeSet<String> {
        let mark = "org.opencontainers.image.";
        text.split(mark).skip(1).map(|rest| rest.split('=').next().unwrap().to_owned()).collect()
    };
    assert_eq!(labels(&dockerfile), labels(&script));
}
