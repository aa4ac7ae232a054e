//! What an edge shows at the keys service: signed as access tokens are, for another audience and of no workspace, so
//! neither passes for the other. Says nothing of which edge it is.

use jsonwebtoken::{Algorithm, Header};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tonic::{Code, Status, metadata::MetadataMap};

use proto::status;

use crate::{Signer, Verifier};

/// The audience of every edge token.
const AUDIENCE: &str = "keymeter-edge";
/// Who every edge is.
const SUBJECT: &str = "edge";

#[derive(Serialize, Deserialize)]
struct Wire {
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
}

impl Signer {
    /// A token for edges, good until `expires`.
    ///
    /// # Panics
    /// Never: the key was tried when it was taken.
    #[must_use]
    pub fn sign_edge_token(&self, expires: OffsetDateTime, now: OffsetDateTime) -> String {
        let header = Header { kid: Some(self.kid().to_owned()), ..Header::new(Algorithm::EdDSA) };
        let wire = Wire {
            sub: SUBJECT.to_owned(),
            aud: AUDIENCE.to_owned(),
            iat: now.unix_timestamp(),
            exp: expires.unix_timestamp(),
        };
        jsonwebtoken::encode(&header, &wire, self.key()).expect("claims are JSON and the key was tried")
    }
}

impl Verifier {
    /// Whether an edge calls, by `authorization: Bearer <token>`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if there is no good token; `PERMISSION_DENIED` if it is somebody else's; `UNAVAILABLE` until
    /// the first public key is known.
    pub fn authenticate_edge_at(&self, metadata: &MetadataMap, now: OffsetDateTime) -> Result<(), Status> {
        let Ok(wire) = self.read::<Wire>(metadata, AUDIENCE) else {
            // Whoever is known as somebody else is told so; the others what is wrong with their token.
            let claims = self.authenticate_at(metadata, now)?;
            return crate::table::Who::Edges.admit(&claims, now);
        };
        if wire.exp <= now.unix_timestamp() {
            return Err(status::error(
                Code::Unauthenticated,
                "EDGE_TOKEN_EXPIRED",
                "the edge token has expired; make a new one with `keys edge-token`",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::verifier::tests::{claims, key, metadata};

    fn reason(result: Result<(), Status>) -> (Code, String) {
        let status = result.unwrap_err();
        (status.code(), status.get_details_error_info().unwrap().reason)
    }

    #[test]
    fn an_edge_token_is_good_for_edges_alone_and_until_it_ends() {
        let (signer, public) = key("a");
        let verifier = Verifier::default();
        let now = OffsetDateTime::now_utc();
        let expires = now + Duration::DAY;
        let bearer = metadata(&format!("Bearer {}", signer.sign_edge_token(expires, now)));
        let unavailable = verifier.authenticate_edge_at(&bearer, now).unwrap_err().code();
        assert_eq!(unavailable, Code::Unavailable, "before the first public key is known");
        verifier.replace(std::slice::from_ref(&public));
        assert!(verifier.authenticate_edge_at(&bearer, expires - Duration::SECOND).is_ok());
        let expired = (Code::Unauthenticated, "EDGE_TOKEN_EXPIRED".to_owned());
        assert_eq!(reason(verifier.authenticate_edge_at(&bearer, expires)), expired);

        // Neither passes for the other.
        let invalid = (Code::Unauthenticated, "ACCESS_TOKEN_INVALID".to_owned());
        assert_eq!(reason(verifier.authenticate_at(&bearer, now).map(|_| ())), invalid);
        let person = crate::Claims { expires, ..claims() };
        let person = metadata(&format!("Bearer {}", signer.sign(&person, now)));
        let only = (Code::PermissionDenied, "EDGES_ONLY".to_owned());
        assert_eq!(reason(verifier.authenticate_edge_at(&person, now)), only);

        // Signed by nobody we know, under a known name.
        let (other, _) = key("a");
        let forged = metadata(&format!("Bearer {}", other.sign_edge_token(expires, now)));
        assert_eq!(reason(verifier.authenticate_edge_at(&forged, now)), invalid);
        let missing = (Code::Unauthenticated, "ACCESS_TOKEN_MISSING".to_owned());
        assert_eq!(reason(verifier.authenticate_edge_at(&MetadataMap::new(), now)), missing);
    }
}
