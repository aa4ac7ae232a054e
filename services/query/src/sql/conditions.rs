//! Conditions on single calls as SQL.

use domain::{KeyId, Outcome, RequestId, SecretId};

use super::{Builder, Value};
use crate::condition::{Condition, Test};

/// Values in one parameter. ClickHouse refuses a form field above 128 KiB, and a value may have 1 KiB, every
/// byte of it escaped.
const VALUES_PER_PARAMETER: usize = 50;

impl Builder {
    /// All of which have to hold.
    pub(super) fn conditions(&mut self, condition: &Condition) -> Vec<String> {
        match condition {
            Condition::All(all) => all.iter().flat_map(|condition| self.conditions(condition)).collect(),
            other => vec![self.condition(other)],
        }
    }

    /// The same for single calls: what is to be looked at first, and what then. Keys are what the table is ordered by, so
    /// what is read of it meets them nearly always; yet ClickHouse would look at them first, since they take little room
    /// on disk, and read 32 bytes for each call. That took eight times as long for what is rare.
    pub(super) fn conditions_of_rows(&mut self, condition: &Condition) -> (Vec<String>, Vec<String>) {
        match condition {
            Condition::All(all) => {
                let (keys, others): (Vec<_>, Vec<_>) =
                    all.iter().partition(|condition| matches!(condition, Condition::Is(Test::Keys(_))));
                let mut of = |conditions: Vec<&Condition>| {
                    conditions.into_iter().flat_map(|condition| self.conditions(condition)).collect()
                };
                (of(others), of(keys))
            }
            other => (vec![self.condition(other)], Vec::new()),
        }
    }

    fn condition(&mut self, condition: &Condition) -> String {
        match condition {
            Condition::All(all) => self.joined(all, " and ", "1"),
            Condition::Any(any) => self.joined(any, " or ", "0"),
            Condition::Not(one) => format!("not {}", self.condition(one)),
            Condition::Is(test) => self.test(test),
        }
    }

    fn joined(&mut self, conditions: &[Condition], word: &str, of_none: &str) -> String {
        if conditions.is_empty() {
            return of_none.to_owned();
        }
        let conditions: Vec<_> = conditions.iter().map(|condition| self.condition(condition)).collect();
        format!("({})", conditions.join(word))
    }

    fn test(&mut self, test: &Test) -> String {
        let mut is_in =
            |column: &str, name: &str, value: Value| format!("{column} in {}", self.put(name, value));
        match test {
            // Equality, not membership: only then is the log of a key read in its order, from its end.
            Test::Keys(keys) if keys.len() == 1 => {
                format!("key_id = {}", self.put("key_id", Value::Uuid(keys[0].as_uuid())))
            }
            Test::Keys(keys) => {
                is_in("key_id", "key_ids", Value::Uuids(keys.iter().map(KeyId::as_uuid).collect()))
            }
            Test::SecretIds(ids) => {
                is_in("secret_id", "secret_ids", Value::Uuids(ids.iter().map(SecretId::as_uuid).collect()))
            }
            Test::RequestIds(ids) => {
                is_in("request_id", "request_ids", Value::Uuids(ids.iter().map(RequestId::as_uuid).collect()))
            }
            Test::Outcomes(outcomes) => {
                let names = outcomes.iter().copied().map(Outcome::as_str).map(str::to_owned).collect();
                is_in("outcome", "outcomes", Value::Texts(names))
            }
            Test::Origins(origins) => {
                let names = origins.iter().map(|origin| origin.as_str().to_owned()).collect();
                is_in("origin", "origins", Value::Texts(names))
            }
            Test::StatusCodes(codes) => is_in("status_code", "status_codes", Value::Codes(codes.clone())),
            Test::StatusClasses(classes) => {
                is_in("intDiv(status_code, 100)", "status_classes", Value::Codes(classes.clone()))
            }
            Test::ClientIps(ips) => is_in("client_ip", "client_ips", Value::Ips(ips.clone())),
            Test::LatencyFrom(us) => {
                format!("latency_us >= {}", self.put("latency_us_from", Value::Int((*us).into())))
            }
            Test::LatencyTo(us) => {
                format!("latency_us < {}", self.put("latency_us_to", Value::Int((*us).into())))
            }
            Test::Methods(values) => self.any_of("method", "methods", values),
            Test::Routes(values) => self.any_of("route", "routes", values),
            Test::ResourceIds(values) => self.any_of("resource_id", "resource_ids", values),
            Test::Denials(values) => self.any_of("denial", "denials", values),
        }
    }

    fn any_of(&mut self, column: &str, name: &str, values: &[String]) -> String {
        if values.len() <= VALUES_PER_PARAMETER {
            return format!("{column} in {}", self.put(name, Value::Texts(values.to_vec())));
        }
        let parts = values
            .chunks(VALUES_PER_PARAMETER)
            .map(|values| format!("{column} in {}", self.put(name, Value::Texts(values.to_vec()))));
        format!("({})", parts.collect::<Vec<_>>().join(" or "))
    }
}
