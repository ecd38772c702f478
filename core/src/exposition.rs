//! Metrics as text that Prometheus reads: the classic format 0.0.4 and
//! OpenMetrics 1.0.
//!
//! source: <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

mod process;

use std::fmt::Write as _;

use crate::metric::Unit;

pub use process::{PROCESS, Usage};

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only grows, until its process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound, their number and their sum.
    Histogram,
    /// Always 1; what it says stands in its labels.
    Info,
}

/// One exposed metric, declared once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name; a counter's ends in `_total`, an info's in `_info`.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Unit of its values.
    pub unit: Unit,
    /// Names of its labels; one without a value is left out.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// Which text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Prometheus text 0.0.4.
    #[default]
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Form {
    /// The one that a request's `Accept` asks for.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// For the answer's `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page of metrics while it is written.
#[derive(Clone, Debug, Default)]
pub struct Page {
    form: Form,
    text: String,
}

/// The samples of one metric, all in one go.
pub struct Family<'a> {
    page: &'a mut Page,
    metric: &'static Metric,
    begun: bool,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub const fn new(form: Form) -> Self {
        let text = String::new();
        Self { form, text }
    }

    /// Begins a metric; without samples it is left out.
    pub const fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        Family {
            page: self,
            metric,
            begun: false,
        }
    }

    /// A metric without labels; left out where it is unavailable.
    pub fn single(&mut self, metric: &'static Metric, value: Option<f64>) {
        if let Some(value) = value {
            self.family(metric).sample(&[], value);
        }
    }

    /// The text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// One value, with the values of the declared labels in their order.
    pub fn sample(&mut self, labels: &[&str], value: f64) {
        self.part("", labels, None, value);
    }

    /// A value of a part of a histogram: suffix `_bucket` with its bound,
    /// `_sum` or `_count`.
    pub fn part(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: f64) {
        self.begin();
        let text = &mut self.page.text;
        text.push_str(self.metric.name);
        text.push_str(suffix);
        let named = self
            .metric
            .labels
            .iter()
            .copied()
            .zip(labels.iter().copied());
        let mut separator = '{';
        for (name, value) in named.chain(le.map(|le| ("le", le))) {
            if value.is_empty() {
                continue;
            }
            text.push(separator);
            text.push_str(name);
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
            separator = ',';
        }
        if separator == ',' {
            text.push('}');
        }
        text.push(' ');
        number(text, value);
        text.push('\n');
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (form, text) = (self.page.form, &mut self.page.text);
        let (name, kind) = match (form, self.metric.kind) {
            (Form::Classic, Type::Info) => (self.metric.name, "gauge"),
            (Form::OpenMetrics, Type::Info) => (trimmed(self.metric.name, "_info"), "info"),
            (Form::OpenMetrics, Type::Counter) => (trimmed(self.metric.name, "_total"), "counter"),
            (Form::Classic, Type::Counter) => (self.metric.name, "counter"),
            (_, Type::Gauge) => (self.metric.name, "gauge"),
            (_, Type::Histogram) => (self.metric.name, "histogram"),
        };
        let _ = write!(text, "# HELP {name} ");
        escape(text, self.metric.help, form == Form::OpenMetrics);
        let _ = writeln!(text, "\n# TYPE {name} {kind}");
    }
}

fn trimmed<'a>(name: &'a str, suffix: &str) -> &'a str {
    name.strip_suffix(suffix).unwrap_or(name)
}

fn escape(text: &mut String, value: &str, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

fn number(text: &mut String, value: f64) {
    let _ = if value.is_nan() {
        write!(text, "NaN")
    } else if value.is_infinite() {
        write!(text, "{}Inf", if value > 0.0 { '+' } else { '-' })
    } else {
        write!(text, "{value}")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    static REQUESTS: Metric = Metric {
        name: "requests_total",
        kind: Type::Counter,
        unit: Unit::Count,
        labels: &["path", "tenant"],
        help: "Requests\nof \"all\".",
    };

    #[test]
    fn both_forms_of_a_counter() {
        let page = |form| {
            let mut page = Page::new(form);
            let mut family = page.family(&REQUESTS);
            family.sample(&["a\"b\\c\nd", ""], 3.0);
            family.sample(&["e", "t"], 0.5);
            page.finish()
        };
        assert_eq!(
            page(Form::Classic),
            "# HELP requests_total Requests\\nof \"all\".\n# TYPE requests_total counter\n\
             requests_total{path=\"a\\\"b\\\\c\\nd\"} 3\nrequests_total{path=\"e\",tenant=\"t\"} 0.5\n"
        );
        let open = page(Form::OpenMetrics);
        assert!(open.starts_with(
            "# HELP requests Requests\\nof \\\"all\\\".\n# TYPE requests counter\nrequests_total{"
        ));
        assert!(open.ends_with("\n# EOF\n"));
    }

    #[test]
    fn what_has_no_sample_is_left_out() {
        let mut page = Page::new(Form::Classic);
        page.family(&REQUESTS);
        page.single(&REQUESTS, None);
        assert_eq!(page.finish(), "");
    }

    #[test]
    fn the_form_is_the_one_asked_for() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
        assert_eq!(Form::accepted("*/*"), Form::Classic);
    }
}
