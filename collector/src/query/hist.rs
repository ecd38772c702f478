//! SQL functions over stored wait histograms.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, BinaryArray, Int64Array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, ColumnarValue, ScalarUDF, Volatility, create_udaf, create_udf,
};
use headroom_core::hist::Hist;

/// `hist_quantile(hist, q)`: the wait in ns at quantile `q` in `0..=1`, within
/// 12.5 %; NULL for an empty or unavailable histogram or another `q`.
pub fn hist_quantile() -> ScalarUDF {
    let types = vec![DataType::Binary, DataType::Float64];
    let run = |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let (hists, quantiles) = (
            arrays[0].as_binary::<i32>(),
            arrays[1].as_primitive::<Float64Type>(),
        );
        let values = hists
            .iter()
            .zip(quantiles)
            .map(|(bytes, q)| match (bytes, q) {
                (Some(bytes), Some(q)) => Ok(decode(bytes)?.quantile(q).map(signed)),
                _ => Ok(None),
            });
        Ok(ColumnarValue::Array(Arc::new(
            values.collect::<Result<Int64Array>>()?,
        )))
    };
    create_udf(
        "hist_quantile",
        types,
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(run),
    )
}

/// `hist_count(hist)`: number of waits.
pub fn hist_count() -> ScalarUDF {
    let run = |args: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        let counts = arrays[0]
            .as_binary::<i32>()
            .iter()
            .map(|bytes| match bytes {
                Some(bytes) => Ok(Some(signed(decode(bytes)?.total()))),
                None => Ok(None),
            });
        Ok(ColumnarValue::Array(Arc::new(
            counts.collect::<Result<Int64Array>>()?,
        )))
    };
    create_udf(
        "hist_count",
        vec![DataType::Binary],
        DataType::Int64,
        Volatility::Immutable,
        Arc::new(run),
    )
}

/// `hist_merge(hist)`: the sum of the histograms of a group, NULL when none of
/// them is available.
pub fn hist_merge() -> AggregateUDF {
    create_udaf(
        "hist_merge",
        vec![DataType::Binary],
        Arc::new(DataType::Binary),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::<Merge>::default())),
        Arc::new(vec![DataType::Binary]),
    )
}

/// Boxed, since few groups see a histogram and one takes 1.5 KiB.
#[derive(Debug, Default)]
struct Merge {
    sum: Option<Box<Hist>>,
}

impl Merge {
    fn add(&mut self, array: &ArrayRef) -> Result<()> {
        let array: &BinaryArray = array.as_binary();
        for bytes in array.iter().flatten() {
            let hist = decode(bytes)?;
            match &mut self.sum {
                Some(sum) => sum.merge(&hist),
                None => self.sum = Some(Box::new(hist)),
            }
        }
        Ok(())
    }
}

impl Accumulator for Merge {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add(&states[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(self.sum.as_ref().map(|h| h.encode())))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.sum.as_ref().map_or(0, |_| size_of::<Hist>())
    }
}

fn decode(bytes: &[u8]) -> Result<Hist> {
    Hist::decode(bytes).map_err(|e| DataFusionError::Execution(e.to_string()))
}

fn signed(v: u64) -> i64 {
    i64::try_from(v).unwrap_or(i64::MAX)
}
