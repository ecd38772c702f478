//! How long each panel takes over a collector that runs already, printed:
//!
//! ```text
//! HEADROOM_DASHBOARDS=DATA_DIR HEADROOM_DASHBOARDS_RANGE=7d \
//!   cargo test --workspace --lib -- dashboards::timing --nocapture
//! ```
//! The data may come from `headroom lab fleet --backfill`. Nothing is asserted
//! of times, and without the variable nothing is asked.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use headroom_core::units::parse_duration;

use super::port::Port;
use super::{Range, board, grafana, values};

#[tokio::test(flavor = "multi_thread")]
async fn panels_of_a_running_collector() {
    let Ok(dir) = std::env::var("HEADROOM_DASHBOARDS") else {
        return;
    };
    let length = std::env::var("HEADROOM_DASHBOARDS_RANGE").unwrap_or("7d".into());
    let length = i64::try_from(parse_duration(&length).unwrap().as_secs()).unwrap();
    let port = Port::open(Path::new(&dir)).await;
    let to_s = time::OffsetDateTime::now_utc().unix_timestamp();
    let range = Range {
        from_s: to_s - length,
        to_s,
        // A panel of half a screen has about 700 points.
        interval_s: (length / 700 / 30 * 30).max(30),
        timescale: true,
    };
    for board in board::all() {
        let mut wrong = Vec::new();
        let chosen = values(&port, &board, (&range, false), &mut wrong).await;
        let mut lines = wrong.join("\n");
        for query in &board.queries {
            let began = Instant::now();
            let told = match grafana::expand(&query.sql, &chosen, &range) {
                Ok(sql) => port.ask(&sql).await.map(|answer| answer.rows.len()),
                Err(error) => Err(error),
            };
            let ms = began.elapsed().as_millis();
            let _ = writeln!(lines, "{ms:>7} ms {told:?} rows  {}", query.place);
        }
        let _ = std::io::Write::write_all(&mut std::io::stderr(), lines.as_bytes());
    }
}
