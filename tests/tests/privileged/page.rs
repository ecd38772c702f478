//! The page in a real browser.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use headroom_tests::guests::Guests;
use headroom_tests::require::{Need, have};
use headroom_tests::up::Up;
use headroom_tests::{output, wait_for};

fn chromium(profile: &Path) -> Command {
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
    ]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    command.args(["--window-size=1300,1000", "--virtual-time-budget=8000"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command
}

#[test]
fn the_page_shows_the_vm_and_its_chart() {
    if !have("the_page", &[Need::Bpf, Need::Kvm, Need::Browser]) {
        return;
    }
    let _cpus = super::super::cpus();
    let dir = tempfile::tempdir().unwrap();
    let config = "[agent]\ninterval = \"1s\"\n[forecaster]\nevery = \"2s\"\nhorizon = \"60s\"\nmin_history = \"10s\"\n";
    let up = Up::start(&dir.path().join("data"), config, &[]).unwrap();
    let guests = Guests::start(&[
        "--count", "3", "--load", "80", "--name", "shown", "--for", "200s",
    ])
    .unwrap();
    wait_for("a forecast of each VM", Duration::from_secs(60), || {
        let rows =
            up.sql("SELECT count(DISTINCT subject) AS n FROM forecasts WHERE subject LIKE 'vm/%'")?;
        anyhow::ensure!(rows[0]["n"].as_i64() >= Some(3), "{rows:?}");
        Ok(())
    })
    .unwrap();
    let page = format!("{}/", up.page);
    let dom = output(
        chromium(&dir.path().join("profile"))
            .arg("--dump-dom")
            .arg(&page),
    )
    .unwrap();
    for needle in [
        "shown1",
        "shown2",
        "shown3",
        "class=\"series\"",
        "class=\"band\"",
        "data-subject=\"vm/",
        "data-subject=\"host/",
    ] {
        assert!(dom.contains(needle), "{needle} is not in the page:\n{dom}");
    }
    assert!(
        !dom.contains("role=\"alert\" style=\"display: block"),
        "the page shows an error:\n{dom}"
    );
    if let Some(to) = std::env::var_os("HEADROOM_SCREENSHOT") {
        let shot = format!("--screenshot={}", Path::new(&to).display());
        output(chromium(&dir.path().join("profile")).arg(shot).arg(&page)).unwrap();
    }
    drop(guests);

    // A page from elsewhere that points its own name at loopback is refused.
    let address = up.page.trim_start_matches("http://");
    let foreign = output(Command::new("python3").args(["-c", FOREIGN, address])).unwrap();
    assert_eq!(foreign.trim(), "421");
}

const FOREIGN: &str = "import http.client, sys\nc = http.client.HTTPConnection(sys.argv[1])\n\
    c.request('GET', '/api/overview', headers={'Host': 'evil.example'})\nprint(c.getresponse().status)";
