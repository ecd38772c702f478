use std::sync::atomic::{AtomicBool, Ordering};

/// Off: the control of the tests of duplicates.
pub static DEDUPE: AtomicBool = AtomicBool::new(true);

pub fn dedupe() -> bool {
    DEDUPE.load(Ordering::SeqCst)
}
