//! Finds calls of the log without reading all of it. Those of one key are in the table's order, and ClickHouse stops when
//! it has enough. Else the totals by quarter hour tell in which quarters the calls are that can be meant, and how many;
//! only these are read call by call, from the end that is asked for.

use domain::WorkspaceId;

use crate::{
    call::Call,
    condition::{Condition, Detail},
    error::StoreError,
    plan::{DAY_MS, QUARTER_MS, Span},
    sql::{self, Direction, Fields, Position},
    store::{CallRow, QuarterRow},
};

/// The part of a range that is looked at first: most pages are of the last days.
const NEAR_MS: i64 = 2 * DAY_MS;
/// Most quarter hours in one list; what lies behind them is read without.
const QUARTERS_MAX: u32 = 3_000;
/// Calls that are read at once, first and then, where the totals know only some of what the filter asks.
const CANDIDATES: [u64; 2] = [200_000, 2_000_000];

/// Calls of the log from a place on.
pub(crate) struct Search<'s> {
    pub(crate) workspace_id: WorkspaceId,
    pub(crate) condition: &'s Condition,
    pub(crate) fields: &'s Fields,
    pub(crate) span: Span,
    pub(crate) position: Option<Position>,
    pub(crate) direction: Direction,
}

impl Search<'_> {
    /// At most `need` calls, the first ones in the direction.
    pub(crate) async fn find(&self, call: &Call, need: usize) -> Result<Vec<CallRow>, StoreError> {
        let mut found = Vec::new();
        if self.is_read_in_order() {
            self.read(call, self.left(), need, &mut found).await?;
            return Ok(found);
        }
        // The totals of one key are quickly read, so that looking at two parts would only cost a second question.
        let spans = if self.condition.is_of_one_key() {
            vec![self.left()]
        } else {
            split(self.left(), self.direction).into()
        };
        for span in spans {
            if found.len() < need && !span.is_empty() {
                self.find_in(call, span, need, &mut found).await?;
            }
        }
        Ok(found)
    }

    /// Where totals know all that is asked beside the key, they lead to the calls sooner, however rare those are.
    fn is_read_in_order(&self) -> bool {
        let totals_know = self.condition.detail() == Detail::Answers && !self.condition.is_of_keys_only();
        self.condition.is_of_one_key() && !totals_know
    }

    /// What is left of the range behind the position.
    fn left(&self) -> Span {
        let Some(Position { occurred_at_ms, .. }) = self.position else { return self.span };
        match self.direction {
            Direction::Falling => Span { to_ms: self.span.to_ms.min(occurred_at_ms + 1), ..self.span },
            Direction::Rising => Span { from_ms: self.span.from_ms.max(occurred_at_ms), ..self.span },
        }
    }

    async fn find_in(
        &self,
        call: &Call,
        span: Span,
        need: usize,
        found: &mut Vec<CallRow>,
    ) -> Result<(), StoreError> {
        let statement = sql::quarters(self.workspace_id, self.condition, span, self.direction, QUARTERS_MAX);
        let quarters = call.rows::<QuarterRow>(self.workspace_id, statement).await?;
        let is_exact = self.condition.detail() == Detail::Answers;
        let mut left = &quarters[..];
        let mut candidates = CANDIDATES.into_iter();
        while !left.is_empty() && found.len() < need {
            let missing = (need - found.len()) as u64;
            let wanted = if is_exact { missing } else { candidates.next().unwrap_or(u64::MAX) };
            let (window, rest) = left.split_at(enough(left, wanted));
            left = rest;
            self.read(call, around(window).cut(span), need, found).await?;
        }
        if quarters.len() as u64 == u64::from(QUARTERS_MAX) && found.len() < need {
            let behind = behind(&quarters, span, self.direction);
            self.read(call, behind, need, found).await?;
        }
        Ok(())
    }

    async fn read(
        &self,
        call: &Call,
        span: Span,
        need: usize,
        found: &mut Vec<CallRow>,
    ) -> Result<(), StoreError> {
        let limit = u32::try_from(need - found.len()).unwrap_or(u32::MAX);
        let asked = (self.condition, self.fields);
        let statement = sql::page(self.workspace_id, asked, span, self.position, self.direction, limit);
        found.extend(call.rows::<CallRow>(self.workspace_id, statement).await?);
        Ok(())
    }
}

/// The near part of a span and the rest of it.
fn split(span: Span, direction: Direction) -> [Span; 2] {
    match direction {
        Direction::Falling => {
            let border = span.from_ms.max(span.to_ms - NEAR_MS);
            [Span { from_ms: border, ..span }, Span { to_ms: border, ..span }]
        }
        Direction::Rising => {
            let border = span.to_ms.min(span.from_ms + NEAR_MS);
            [Span { to_ms: border, ..span }, Span { from_ms: border, ..span }]
        }
    }
}

/// How many quarters have `wanted` calls, beside the first one, of which the span may have only a part.
fn enough(quarters: &[QuarterRow], wanted: u64) -> usize {
    let mut sum = 0u64;
    let has_enough = quarters.iter().skip(1).position(|quarter| {
        sum += quarter.call_count;
        sum >= wanted
    });
    has_enough.map_or(quarters.len(), |position| position + 2)
}

/// All between the first and the last of the quarters. One span, also where they are few and far between: a list of spans
/// costs ClickHouse more than the granules between them.
fn around(quarters: &[QuarterRow]) -> Span {
    let starts_ms = || quarters.iter().map(|quarter| quarter.start_s * 1000);
    Span { from_ms: starts_ms().min().unwrap_or(0), to_ms: starts_ms().max().map_or(0, |ms| ms + QUARTER_MS) }
}

/// What of a span lies behind the last of the quarters.
fn behind(quarters: &[QuarterRow], span: Span, direction: Direction) -> Span {
    let last = quarters.last().map_or(span, |last| Span::quarter(last.start_s * 1000));
    match direction {
        Direction::Falling => Span { to_ms: last.from_ms, ..span },
        Direction::Rising => Span { from_ms: last.to_ms, ..span },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER_S: i64 = 900;

    fn quarters(list: &[(i64, u64)]) -> Vec<QuarterRow> {
        let row = |(number, call_count): &(i64, u64)| QuarterRow {
            start_s: number * QUARTER_S,
            call_count: *call_count,
        };
        list.iter().map(row).collect()
    }

    #[test]
    fn the_near_part_comes_first() {
        let span = Span { from_ms: 0, to_ms: 10 * DAY_MS };
        let [near, far] = split(span, Direction::Falling);
        assert_eq!((near.from_ms, near.to_ms, far.to_ms), (8 * DAY_MS, 10 * DAY_MS, 8 * DAY_MS));
        let [near, far] = split(span, Direction::Rising);
        assert_eq!((near.from_ms, near.to_ms, far.from_ms), (0, 2 * DAY_MS, 2 * DAY_MS));
        let [near, far] = split(Span { from_ms: 5, to_ms: 7 }, Direction::Falling);
        assert_eq!((near.from_ms, near.to_ms, far.is_empty()), (5, 7, true));
    }

    #[test]
    fn a_window_has_enough_without_its_first_quarter() {
        let list = quarters(&[(9, 100), (8, 3), (7, 4), (5, 9)]);
        assert_eq!(enough(&list, 3), 2);
        assert_eq!(enough(&list, 4), 3);
        assert_eq!(enough(&list, 17), 4);
        assert_eq!(enough(&list[..1], 1), 1);
    }

    #[test]
    fn a_window_reaches_around_its_quarters() {
        let ms = |number: i64| number * QUARTER_S * 1000;
        assert_eq!(around(&quarters(&[(999, 1), (2, 1)])), Span { from_ms: ms(2), to_ms: ms(1_000) });
        assert!(around(&[]).is_empty());
    }
}
