use std::time::Duration;

use doorward_core::{
    api_key::{ApiKey, KeyOwner},
    effects::Effects,
    id::{ApiKeyId, OrgId},
};

use super::{START, all_effects, api_key, fresh, fresh_hash, stored_user, traces};
use crate::{RevokeApiKey, Store, StoreError};

pub async fn an_api_key_is_found_with_its_owner_and_revoked_once(a: Store, b: Store) {
    let user = stored_user(&a).await;
    let org = OrgId::mint(START, fresh());
    let owned = api_key(KeyOwner::User(user.id));
    let full = ApiKey {
        org_id: Some(org),
        capabilities: [].into(),
        expires_at: Some(START.plus(Duration::from_secs(9))),
        deleted_at: Some(START),
        last_used_at: Some(START),
        ..api_key(KeyOwner::Org(org))
    };
    let service = api_key(KeyOwner::Service("backup".to_owned()));
    assert_eq!(a.api_key(fresh_hash()).await, Ok(None));
    for (key, owner) in [(&owned, Some(&user)), (&full, None), (&service, None)] {
        a.put_api_key(key.clone(), Effects::default()).await.unwrap();
        assert_eq!(b.api_key(key.hash).await, Ok(Some((key.clone(), owner.cloned()))));
    }
    assert_eq!(b.api_keys(user.id).await, Ok(vec![owned.clone()]));
    for clash in
        [ApiKey { hash: owned.hash, ..api_key(KeyOwner::User(user.id)) }, api_key(KeyOwner::User(super::user().id))]
    {
        let error = a.put_api_key(clash, all_effects()).await.unwrap_err();
        assert!(matches!(error, StoreError::Fault { op: "put_api_key", .. }), "{error}");
    }
    let at = START.plus(Duration::from_secs(5));
    let revoked = ApiKey { revoked_at: Some(at), ..owned.clone() };
    let outcome = b.revoke_api_key(owned.id, at, Effects::default()).await;
    assert_eq!(outcome, Ok(RevokeApiKey::Revoked(Box::new(revoked.clone()))));
    assert_eq!(a.revoke_api_key(owned.id, START, all_effects()).await, Ok(RevokeApiKey::AlreadyRevoked));
    let nobody = ApiKeyId::mint(START, fresh());
    assert_eq!(a.revoke_api_key(nobody, at, all_effects()).await, Ok(RevokeApiKey::Unknown));
    assert_eq!(a.api_key(owned.hash).await, Ok(Some((revoked, Some(user)))));
    assert_eq!(traces(&b).await, (0, 0, 0));
}

pub async fn an_api_key_is_touched_forward_only(a: Store, b: Store) {
    let key = api_key(KeyOwner::Service("ci".to_owned()));
    a.put_api_key(key.clone(), Effects::default()).await.unwrap();
    let later = START.plus(Duration::from_secs(60));
    for at in [later, START] {
        b.touch_api_keys(vec![(key.id, at), (ApiKeyId::mint(START, fresh()), at)]).await.unwrap();
        let (found, _) = a.api_key(key.hash).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(later));
    }
}
