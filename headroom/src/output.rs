//! Everything the command prints: tables, JSON, CSV and plain lines.

use std::io::Write as _;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use clap::ValueEnum;

pub use headroom_lab::terminal::{complain, say};

/// Form of printed data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people
    #[default]
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Ndjson,
    /// CSV with a header
    Csv,
}

/// Prints rows in the form asked for.
///
/// # Errors
/// A value that the form can't hold.
pub fn print(schema: &SchemaRef, batches: &[RecordBatch], format: Format) -> anyhow::Result<()> {
    let bytes = render(schema, batches, format)?;
    let mut out = std::io::stdout().lock();
    if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
    Ok(())
}

/// The bytes of rows in the form asked for.
///
/// # Errors
/// A value that the form can't hold.
pub fn render(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    format: Format,
) -> anyhow::Result<Vec<u8>> {
    match format {
        Format::Table => {
            let table = if batches.is_empty() {
                arrow::util::pretty::pretty_format_batches(&[RecordBatch::new_empty(
                    schema.clone(),
                )])
            } else {
                arrow::util::pretty::pretty_format_batches(batches)
            };
            Ok(format!("{}\n", table.context("format the table")?).into_bytes())
        }
        Format::Json | Format::Ndjson => json(batches, format == Format::Json),
        Format::Csv => {
            let mut out = Vec::new();
            let mut writer = arrow::csv::WriterBuilder::new()
                .with_header(true)
                .build(&mut out);
            if batches.is_empty() {
                writer
                    .write(&RecordBatch::new_empty(schema.clone()))
                    .context("write CSV")?;
            }
            for batch in batches {
                writer.write(batch).context("write CSV")?;
            }
            drop(writer);
            Ok(out)
        }
    }
}

fn json(batches: &[RecordBatch], array: bool) -> anyhow::Result<Vec<u8>> {
    use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let refs: Vec<&RecordBatch> = batches.iter().collect();
    let mut out = Vec::new();
    if array {
        let mut writer = builder.build::<_, JsonArray>(&mut out);
        writer.write_batches(&refs).context("write JSON")?;
        writer.finish().context("write JSON")?;
        drop(writer);
        out.push(b'\n');
    } else {
        let mut writer = builder.build::<_, LineDelimited>(&mut out);
        writer.write_batches(&refs).context("write JSON")?;
        writer.finish().context("write JSON")?;
    }
    Ok(out)
}
