//! Who calls the API: one key per integration, each with its own habits. Shows why keys are kept apart: their
//! usage differs, one is for staging, one went out of use.

use proto::keys::Environment;

use crate::dice::Dice;

/// A caller and the key that it has.
#[derive(Debug)]
pub struct Caller {
    /// The key's name.
    pub display_name: &'static str,
    /// The key's description.
    pub description: &'static str,
    /// The key's environment.
    pub environment: Environment,
    /// What it sends as `User-Agent`.
    pub user_agent: &'static str,
    /// Last part of its address in 203.0.113.0/24, which is for documentation.
    pub host: u8,
    /// How many calls it makes on a usual day.
    pub calls_per_day: u32,
    /// Its calls over the hours of a day, UTC.
    pub hours: &'static [u32; 24],
    /// It has not called since this many days ago; 0 if it still calls.
    pub silent_days: u32,
    /// Its calls by method and route.
    pub mix: &'static [((&'static str, &'static str), u32)],
}

const BY_DAY: [u32; 24] =
    [2, 1, 1, 1, 1, 2, 4, 8, 14, 20, 22, 21, 18, 20, 22, 22, 20, 17, 13, 10, 8, 6, 5, 3];
const BY_NIGHT: [u32; 24] = [30, 40, 40, 30, 10, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 5, 15];
const ALWAYS: [u32; 24] = [1; 24];

/// The first key, for whoever installed this: no caller uses it, so its usage is its owner's alone.
pub const YOURS: Caller = Caller {
    display_name: "Yours to try",
    description: "Made at the first start; its secret is in .local/endpoints.json. Nothing else calls with it.",
    environment: Environment::Live,
    user_agent: "",
    host: 0,
    calls_per_day: 0,
    hours: &ALWAYS,
    silent_days: 0,
    mix: &[],
};

/// The callers.
pub const CALLERS: &[Caller] = &[
    Caller {
        display_name: "Mobile app",
        description: "Orders and payments of the iOS and Android apps.",
        environment: Environment::Live,
        user_agent: "shop-mobile/5.12 (android)",
        host: 11,
        calls_per_day: 620,
        hours: &BY_DAY,
        silent_days: 0,
        mix: &[
            (("GET", "/v1/orders"), 30),
            (("GET", "/v1/orders/{id}"), 40),
            (("POST", "/v1/orders"), 12),
            (("PATCH", "/v1/orders/{id}"), 6),
            (("DELETE", "/v1/orders/{id}"), 2),
            (("POST", "/v1/customers/{id}/payments"), 10),
        ],
    },
    Caller {
        display_name: "Billing export",
        description: "Nightly job that copies invoices and payments into accounting.",
        environment: Environment::Live,
        user_agent: "billing-export/2.3",
        host: 24,
        calls_per_day: 420,
        hours: &BY_NIGHT,
        silent_days: 0,
        mix: &[
            (("GET", "/v1/invoices/{id}"), 55),
            (("GET", "/v1/customers/{id}/payments"), 35),
            (("PUT", "/v1/invoices/{id}"), 6),
            (("POST", "/v1/exports"), 4),
        ],
    },
    Caller {
        display_name: "Partner: Northwind",
        description: "Northwind's warehouse; contact their integration team before deleting.",
        environment: Environment::Live,
        user_agent: "northwind-sync/1.0",
        host: 87,
        calls_per_day: 260,
        hours: &BY_DAY,
        silent_days: 0,
        mix: &[
            (("POST", "/v1/webhooks"), 60),
            (("GET", "/v1/orders/{id}"), 30),
            (("POST", "/v1/exports"), 10),
        ],
    },
    Caller {
        display_name: "Staging checks",
        description: "Smoke tests of the staging environment, every few minutes.",
        environment: Environment::Test,
        user_agent: "smoke/0.9",
        host: 140,
        calls_per_day: 140,
        hours: &ALWAYS,
        silent_days: 0,
        mix: &[
            (("GET", "/v1/orders"), 40),
            (("POST", "/v1/orders"), 20),
            (("PUT", "/v1/invoices/{id}"), 20),
            (("DELETE", "/v1/orders/{id}"), 20),
        ],
    },
    Caller {
        display_name: "Old reporting",
        description: "Replaced by the billing export.",
        environment: Environment::Live,
        user_agent: "report-cron/0.1",
        host: 201,
        calls_per_day: 90,
        hours: &ALWAYS,
        silent_days: 4,
        mix: &[(("GET", "/v1/invoices/{id}"), 80), (("GET", "/v1/orders"), 20)],
    },
];

/// One call as a caller makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// HTTP method.
    pub method: &'static str,
    /// Path and, on a list, query.
    pub path_and_query: String,
    /// JSON; empty for methods without a body.
    pub body: String,
    /// How many of the same follow each other at once: above one where a caller does not wait its turn.
    pub burst: u32,
}

/// Ids of orders, invoices and customers start here.
const FIRST_ID: u64 = 1000;
const IDS: u64 = 400;
/// Most exports that an impatient caller asks for at once.
const BURST_MAX: u64 = 8;

impl Caller {
    /// The next call.
    pub fn call(&self, dice: &mut Dice) -> Call {
        let (method, route) = *dice.choose(self.mix);
        let number = FIRST_ID + dice.below(IDS);
        let mut path_and_query = route.replace("{id}", &number.to_string());
        let body = match method {
            "POST" | "PUT" | "PATCH" => format!("{{\"reference\":\"{:08x}\"}}", dice.below(1 << 32)),
            _ => String::new(),
        };
        if method == "GET" && route == path_and_query {
            path_and_query = format!("{route}?page={}", 1 + dice.below(200));
        }
        let burst = if route == "/v1/exports" { 1 + dice.below(BURST_MAX) } else { 1 };
        Call { method, path_and_query, body, burst: u32::try_from(burst).unwrap_or(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn callers_call_only_what_the_api_has() {
        for caller in CALLERS {
            let mut dice = Dice::new(3);
            for _ in 0..200 {
                let call = caller.call(&mut dice);
                let path = call.path_and_query.split('?').next().unwrap();
                assert!(catalogue::find(call.method, path).is_ok(), "{call:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_calls() {
        let calls = |seed| {
            let mut dice = Dice::new(seed);
            (0..50).map(|_| CALLERS[0].call(&mut dice)).collect::<Vec<_>>()
        };
        assert_eq!(calls(9), calls(9));
        assert_ne!(calls(9), calls(10));
    }
}
