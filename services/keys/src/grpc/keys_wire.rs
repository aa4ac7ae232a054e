//! What requests about keys say, checked field by field.

use access::Subject;
use proto::keys::{CreateKeyRequest, KeyFilter, KeyHygiene, KeyOrder, KeyState, ListKeysRequest};

use super::{required, wire};
use crate::{
    error::Error,
    fields,
    key::{Created, Standing},
    lifecycle::NewKey,
    listing::{self, Filter, Hygiene, Order, Position},
    page,
};

const SEARCH_CHARS_MAX: usize = 100;

/// A new key.
pub(super) fn new_key(request: CreateKeyRequest) -> Result<NewKey, Error> {
    let key = required("key", request.key)?;
    let owner = Some(&key.owner).filter(|owner| !owner.is_empty());
    let environment = wire::environment("key.environment", key.environment)?;
    let named = NewKey::named(&fields::display_name("key.display_name", &key.display_name)?, environment);
    Ok(NewKey {
        created: Created {
            description: fields::description("key.description", &key.description)?,
            expire_time: fields::time("key.expire_time", key.expire_time.as_ref())?,
            tags: fields::tags("key.tags", &key.tags)?,
            owner: owner.map(|owner| fields::owner("key.owner", owner)).transpose()?,
            scopes: fields::scopes("key.scopes", &key.scopes)?,
            allowed_networks: fields::allowed_networks("key.allowed_networks", &key.allowed_networks)?,
            rate_limits: fields::rate_limits("key.rate_limits", &key.rate_limits)?,
            ..named.created
        },
        idempotency_key: fields::idempotency_key(&request.idempotency_key)?,
    })
}

/// Which keys are to be listed.
pub(super) fn filter(request: &ListKeysRequest) -> Result<Filter, Error> {
    let nothing = KeyFilter::default();
    let filter = request.filter.as_ref().unwrap_or(&nothing);
    let words = match filter.search.trim() {
        "" => Vec::new(),
        text if text.chars().count() > SEARCH_CHARS_MAX => {
            return Err(Error::invalid("filter.search", "must have at most 100 characters"));
        }
        text => listing::words("filter.search", text)?,
    };
    let environment = match filter.environment {
        0 => None,
        environment => Some(wire::environment("filter.environment", environment)?),
    };
    let owner: Option<Subject> = match filter.owner.as_str() {
        "" => None,
        owner => Some(fields::owner("filter.owner", owner)?),
    };
    let standings = filter.states.iter().map(|state| standing(*state)).collect::<Result<Vec<_>, _>>()?;
    Ok(Filter {
        order: order(request.order_by)?,
        words,
        environment,
        tags: fields::tags("filter.tags", &filter.tags)?,
        owner,
        standings: all_but_deleted(&standings, request.show_deleted),
        hygiene: filter.hygiene.iter().map(|hygiene| self::hygiene(*hygiene)).collect::<Result<_, _>>()?,
    })
}

/// Where a list goes on.
pub(super) fn position(order: Order, list: &str, token: &str) -> Result<Option<Position>, Error> {
    page::position(list, token)?.map(|wire| Position::read(order, wire)).transpose()
}

/// Each once; without any, what lists show by themselves.
fn all_but_deleted(asked: &[Standing], show_deleted: bool) -> Vec<Standing> {
    let asked = |standing: &Standing| {
        if asked.is_empty() {
            *standing != Standing::Deleted || show_deleted
        } else {
            asked.contains(standing)
        }
    };
    [Standing::Active, Standing::Expired, Standing::Disabled, Standing::Deleted]
        .into_iter()
        .filter(asked)
        .collect()
}

fn standing(state: i32) -> Result<Standing, Error> {
    match KeyState::try_from(state) {
        Ok(KeyState::Active) => Ok(Standing::Active),
        Ok(KeyState::Expired) => Ok(Standing::Expired),
        Ok(KeyState::Deleted) => Ok(Standing::Deleted),
        Ok(KeyState::Disabled) => Ok(Standing::Disabled),
        Ok(KeyState::Unspecified) | Err(_) => {
            Err(Error::invalid("filter.states", "must be KEY_STATE_ACTIVE, _EXPIRED, _DISABLED or _DELETED"))
        }
    }
}

fn hygiene(hygiene: i32) -> Result<Hygiene, Error> {
    match KeyHygiene::try_from(hygiene) {
        Ok(KeyHygiene::NeverUsed) => Ok(Hygiene::NeverUsed),
        Ok(KeyHygiene::Unused30Days) => Ok(Hygiene::UnusedDays(30)),
        Ok(KeyHygiene::Unused90Days) => Ok(Hygiene::UnusedDays(90)),
        Ok(KeyHygiene::NoExpiry) => Ok(Hygiene::NoExpiry),
        Ok(KeyHygiene::ExpiresSoon) => Ok(Hygiene::ExpiresSoon),
        Ok(KeyHygiene::ManyAddresses) => Ok(Hygiene::ManyAddresses),
        Ok(KeyHygiene::Exposed) => Ok(Hygiene::Exposed),
        Ok(KeyHygiene::SeveralSecrets) => Ok(Hygiene::SeveralSecrets),
        Ok(KeyHygiene::Unspecified) | Err(_) => {
            Err(Error::invalid("filter.hygiene", "must be values of KeyHygiene other than 0"))
        }
    }
}

fn order(order: i32) -> Result<Order, Error> {
    match KeyOrder::try_from(order) {
        Ok(KeyOrder::Unspecified | KeyOrder::CreateTimeDesc) => Ok(Order::CreateTime),
        Ok(KeyOrder::DisplayName) => Ok(Order::DisplayName),
        Ok(KeyOrder::LastUsedTimeDesc) => Ok(Order::LastUsedTime),
        Ok(KeyOrder::ExpireTime) => Ok(Order::ExpireTime),
        Err(_) => Err(Error::invalid("order_by", "must be a value of KeyOrder")),
    }
}
