//! Usage as an internal service reads it: over gRPC, and as an analyst does: by SQL.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    timestamp,
    usage::{
        Breakdown, Counts, Dimension, Freshness, GetBreakdownRequest, GetSummaryRequest, ListRequestsRequest,
        Request, UsageFilter, usage_service_client::UsageServiceClient,
    },
};
use time::{Duration, OffsetDateTime};
use tonic::transport::Channel;

use crate::stack::Stack;

/// Calls of the last day, of the given keys or of all.
pub(crate) fn last_day(key_ids: &[&str]) -> UsageFilter {
    let now = OffsetDateTime::now_utc();
    UsageFilter {
        from: Some(timestamp::to_proto(now - Duration::DAY)),
        to: Some(timestamp::to_proto(now + Duration::HOUR)),
        key_ids: key_ids.iter().map(|&id| id.to_owned()).collect(),
        ..UsageFilter::default()
    }
}

impl Stack {
    pub(crate) async fn usage(&self) -> UsageServiceClient<Channel> {
        UsageServiceClient::new(self.query_channel().await)
    }

    pub(crate) async fn summary(&self, filter: UsageFilter) -> (Counts, Freshness) {
        let request =
            GetSummaryRequest { parent: self.workspace.clone(), filter: Some(filter), ..Default::default() };
        let request = self.signed(request).await;
        let summary = self.usage().await.get_summary(request).await.unwrap().into_inner();
        (summary.counts.unwrap(), summary.freshness.unwrap())
    }

    pub(crate) async fn total(&self, filter: UsageFilter) -> u64 {
        self.summary(filter).await.0.total_count
    }

    /// Waits until the answers say that they hold every call that ended before now.
    pub(crate) async fn complete(&self) {
        let now = OffsetDateTime::now_utc();
        parts::eventually("usage is complete up to now", async || {
            let (_, freshness) = self.summary(last_day(&[])).await;
            let complete = freshness.complete_up_to.as_ref().and_then(timestamp::from_proto)?;
            (complete >= now).then_some(())
        })
        .await;
    }

    pub(crate) async fn breakdown(&self, filter: UsageFilter, dimension: Dimension) -> Breakdown {
        let request = GetBreakdownRequest {
            parent: self.workspace.clone(),
            filter: Some(filter),
            dimension: dimension.into(),
            limit: 1_000,
            ..Default::default()
        };
        let request = self.signed(request).await;
        self.usage().await.get_breakdown(request).await.unwrap().into_inner()
    }

    /// Value → total of one dimension.
    pub(crate) async fn totals(&self, filter: UsageFilter, dimension: Dimension) -> BTreeMap<String, u64> {
        let breakdown = self.breakdown(filter, dimension).await;
        assert_eq!(breakdown.other_value_count, 0);
        breakdown.rows.into_iter().map(|row| (row.value, row.counts.unwrap().total_count)).collect()
    }

    /// The whole log, page by page.
    pub(crate) async fn log(&self, filter: UsageFilter) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListRequestsRequest {
                parent: self.workspace.clone(),
                filter: Some(filter.clone()),
                page_size: 1_000,
                page_token,
                ..Default::default()
            };
            let request = self.signed(request).await;
            let page = self.usage().await.list_requests(request).await.unwrap().into_inner();
            requests.extend(page.requests);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return requests;
            }
        }
    }

    /// A number from ClickHouse itself.
    pub(crate) async fn number(&self, sql: &str) -> u64 {
        self.clickhouse.query(sql).await.trim().parse().unwrap()
    }

    /// Asserts that these calls, and no others but at most `unanswered`, are in ClickHouse, each once.
    pub(crate) async fn assert_counted_once(&self, answered: &BTreeSet<String>, unanswered: u64) {
        parts::eventually("every answered call is in the log", async || {
            let rows = self.number("select count() from keymeter.request_events").await;
            rows >= u64::try_from(answered.len()).unwrap()
        })
        .await;
        self.complete().await;
        let rows = self.number("select count() from keymeter.request_events").await;
        let calls = self.number("select uniqExact(request_id) from keymeter.request_events").await;
        assert_eq!(rows, calls, "a call is counted twice");
        let logged: BTreeSet<_> =
            self.log(last_day(&[])).await.into_iter().map(|call| request_id(&call)).collect();
        assert_eq!(
            answered.difference(&logged).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "answered but lost"
        );
        let extra = u64::try_from(logged.len() - answered.len()).unwrap();
        assert!(
            extra <= unanswered,
            "{extra} calls in the log were never answered, {unanswered} were cut off"
        );
    }
}

/// `req_…` of a call in the log.
pub(crate) fn request_id(request: &Request) -> String {
    request.name.rsplit('/').next().unwrap().to_owned()
}
