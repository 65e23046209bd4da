//! Who a mail address is at Keygen.

use doorward_core::user::Email;

use super::KeygenProvider;
use crate::flow::{DirectoryFault, SubjectAnswer, SubjectDirectory};

impl SubjectDirectory for KeygenProvider {
    fn subject_of<'a>(&'a self, email: &'a Email) -> SubjectAnswer<'a> {
        Box::pin(async move {
            let user = self.find_user(email).await.map_err(|trouble| DirectoryFault(trouble.to_string()))?;
            Ok(user.map(|user| user.id))
        })
    }
}
