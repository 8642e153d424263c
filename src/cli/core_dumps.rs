//! No core dumps: keys and tokens are in this process's memory, and a dump would write them to disk, or into the system's collector of crashes.

use std::io;

/// Forbids them for this process. Its limit alone does not: a collector that the kernel pipes dumps into is given one whatever the limit (core(5)). A process
/// that is not dumpable has none, and its memory cannot be read, by a debugger or `/proc`, except by root.
///
/// # Errors
/// Where the system does not allow it.
pub(super) fn forbid() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    #[test]
    fn nothing_dumps_this_process() {
        super::forbid().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
