//! Who a mail address is at the hub (B23).

use doorward_core::user::Email;

use super::JwtProvider;
use crate::flow::{DirectoryFault, SubjectAnswer, SubjectDirectory};

impl SubjectDirectory for JwtProvider {
    fn subject_of<'a>(&'a self, email: &'a Email) -> SubjectAnswer<'a> {
        Box::pin(async move {
            let user = self.find_user(email).await.map_err(|trouble| DirectoryFault(trouble.to_string()))?;
            Ok(user.map(|user| user.id))
        })
    }
}
