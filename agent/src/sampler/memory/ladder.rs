//! The steps from reclaim to OOM kill, each event at its time.

/// Seconds without a sign of it that end an episode. Reclaim at a limit comes
/// in bursts a few seconds apart; ten tell one squeeze from the next.
const QUIET_TICKS: u32 = 10;

/// One step of the ladder, watched through a figure that grows with it.
#[derive(Clone, Debug, Default)]
pub struct Rung {
    last: Option<u64>,
    /// Ticks since it last grew, while an episode is open.
    open: Option<u32>,
}

impl Rung {
    /// Takes the next reading, a second after the last one; by how much the
    /// figure grew if that opens an episode. The first reading is the base. A
    /// figure that falls (a gauge, or a cgroup made anew) is a new base.
    pub fn step(&mut self, figure: Option<u64>) -> Option<u64> {
        let growth = self.growth(figure).filter(|growth| *growth > 0);
        let open = self.open;
        self.open = match growth {
            Some(_) => Some(0),
            None => open.map(|quiet| quiet + 1).filter(|q| *q < QUIET_TICKS),
        };
        growth.filter(|_| open.is_none())
    }

    /// By how much the figure grew, for what is an event each time.
    pub fn growth(&mut self, figure: Option<u64>) -> Option<u64> {
        // A reading that failed leaves the base: nothing is lost.
        let now = figure?;
        let last = self.last.replace(now)?;
        now.checked_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_an_episode() {
        let mut rung = Rung::default();
        assert_eq!(rung.step(Some(100)), None, "the base");
        assert_eq!(rung.step(Some(100)), None);
        assert_eq!(rung.step(Some(103)), Some(3), "it starts");
        assert_eq!(rung.step(Some(110)), None, "it goes on");
        for _ in 1..QUIET_TICKS {
            assert_eq!(rung.step(Some(110)), None);
        }
        assert_eq!(rung.step(Some(111)), None, "still the same");
        for _ in 0..QUIET_TICKS {
            assert_eq!(rung.step(Some(111)), None);
        }
        assert_eq!(rung.step(Some(112)), Some(1), "another one");
    }

    #[test]
    fn what_cannot_be_read_starts_nothing() {
        let mut rung = Rung::default();
        assert_eq!(rung.step(None), None);
        assert_eq!(rung.step(Some(7)), None, "the base");
        assert_eq!(rung.step(None), None);
        assert_eq!(rung.step(Some(9)), Some(2));
        let mut gauge = Rung::default();
        assert_eq!(gauge.step(Some(9)), None);
        assert_eq!(gauge.step(Some(2)), None, "it fell");
        assert_eq!(gauge.step(Some(5)), Some(3));
    }
}
