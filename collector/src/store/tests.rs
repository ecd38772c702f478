use std::sync::Mutex;

use super::Step;
use crate::Error;

/// Where the next flush ends, as if the process had died there.
pub static END_AT: Mutex<Option<Step>> = Mutex::new(None);

pub fn step(at: Step) -> Result<(), Error> {
    if *END_AT.lock().unwrap() == Some(at) {
        Err(Error::Injected(at))
    } else {
        Ok(())
    }
}

pub const fn is_injected(error: &Error) -> bool {
    matches!(error, Error::Injected(_))
}
