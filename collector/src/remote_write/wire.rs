//! Messages of remote-write 1.0; fields that are not sent are left out.
//!
//! source: <https://github.com/prometheus/prometheus/blob/main/prompb/remote.proto>

/// One request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WriteRequest {
    /// Its series.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// Samples of one series, in order of time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// At least one.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// A label that has a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Label {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value, never empty.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A number at a time.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// The number.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// ms since 1970 UTC.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}
