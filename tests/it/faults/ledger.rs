//! The ledger's disk fails, or its file breaks, while it serves: only revocations wait for it.

use std::fs;

use rustix::process::Resource;

use super::stand::{Seen, Stand, cached};

const LOST: &str = r#"bearerd_ledger_errors_total{kind="lost"}"#;

/// Rule of the house: what was accepted is on disk. A limit on file sizes stands for the disk here: it needs no rights.
#[tokio::test]
async fn a_disk_that_takes_nothing_refuses_revocations_and_nothing_else() {
    let stand = Stand::new().await;
    assert_eq!(stand.revoke().await, 204);
    stand.process.limit(Resource::Fsize, Some(0));
    assert_eq!(stand.revoke().await, 503);
    stand.until(r#"bearerd_ledger_errors_total{kind="write"}"#, |value| value > 0.0).await;
    assert_eq!([stand.ask(&cached(0)).await, stand.ask_anew().await], [Seen::Served, Seen::Served]);
    assert_eq!(stand.readiness().await, 200);
    stand.process.limit(Resource::Fsize, None);
    assert_eq!(stand.revoke().await, 204, "the next one is written");
    stand.recovers("a full disk", &[]).await;
    stand.ends().await;
}

#[tokio::test]
async fn a_file_that_breaks_while_it_serves_costs_no_request_and_is_put_aside_at_the_next_start() {
    for (name, breaks) in
        [("emptied", Vec::new()), ("cut off", vec![b'x'; 100]), ("garbled", (0..1 << 20).map(|place: u32| (place % 251) as u8).collect())]
    {
        let mut stand = Stand::new().await;
        assert_eq!(stand.revoke().await, 204);
        // In place: the file stays the one that is open.
        fs::write(stand.folder.path().join("ledger.redb"), breaks).unwrap();
        for _ in 0..3 {
            assert_eq!([stand.ask(&cached(0)).await, stand.ask_anew().await], [Seen::Served, Seen::Served], "{name}");
            let status = stand.revoke().await;
            assert!(status == 204 || status == 503, "{name}: {status}");
        }
        assert_eq!(stand.readiness().await, 200, "{name}");
        stand.restart().await;
        assert_eq!([stand.ask(&cached(0)).await, stand.ask_anew().await], [Seen::Served, Seen::Served], "{name}");
        let lost = crate::support::bearerd::series(stand.addresses.metrics).await[LOST];
        let aside = fs::read_dir(stand.folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".unreadable-"));
        assert_eq!(lost as usize, aside.count(), "{name}: what is not read is told of, and kept");
        assert_eq!(stand.revoke().await, 204, "{name}");
        stand.ends().await;
    }
}

/// The file that is open is the one that is written, wherever it is by then.
#[tokio::test]
async fn a_folder_that_is_moved_away_and_back_costs_nothing() {
    let stand = Stand::new().await;
    let (here, away) = (stand.folder.path().to_owned(), stand.folder.path().with_extension("away"));
    fs::rename(&here, &away).unwrap();
    assert_eq!([stand.ask(&cached(0)).await, stand.ask_anew().await], [Seen::Served, Seen::Served]);
    assert_eq!((stand.revoke().await, stand.readiness().await), (204, 200));
    fs::rename(&away, &here).unwrap();
    assert_eq!(stand.revoke().await, 204);
    stand.recovers("a folder that was away", &[]).await;
    stand.ends().await;
}
