//! The way out of the machine.

use std::fs::File;
use std::io::Write as _;

use anyhow::Context as _;
use headroom_vmlab::message::{Message, WIRE};
use serde::Serialize;

/// The second serial port. Closing it waits until all is sent.
pub struct Wire(File);

impl Wire {
    /// Opens the port.
    pub fn open() -> anyhow::Result<Self> {
        let file = File::options().write(true).open(WIRE);
        Ok(Self(file.with_context(|| format!("open {WIRE}"))?))
    }

    /// Sends a message as one line.
    pub fn send(&mut self, message: &Message) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line).context("write to the wire")
    }

    /// Sends a truth.
    pub fn truth(&mut self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        self.send(&Message::Truth {
            name: name.to_owned(),
            value: serde_json::to_value(value)?,
        })
    }
}
