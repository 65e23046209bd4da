use std::collections::BTreeSet;

use super::*;

/// A verifier without any sense: it answers everything alike.
fn parrot(word: &str) -> Launcher {
    let script = format!("echo ready; while read -r id _; do echo \"$id {word}\"; done");
    Launcher::Lines(vec!["sh".to_owned(), "-c".to_owned(), script])
}

#[test]
fn every_situation_has_a_name_of_its_own_and_says_what_is_expected() {
    let cases = all();
    let names: BTreeSet<_> = cases.iter().map(|case| &case.id).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 75, "{}", cases.len());
    assert!(cases.iter().all(|case| !case.title.is_empty() && !case.expected.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_accepts_everything_is_found_out() {
    let cases: Vec<_> = all().into_iter().filter(|case| case.group == "Forgeries" || case.id == "not-yet").collect();
    let scores = play(&cases, &parrot("accept")).await;
    assert!(scores.len() > 10);
    assert!(scores.iter().all(|score| !score.is_green()), "{scores:?}");
    let text = table::markdown(&cases, &[table::Column { name: "a parrot".to_owned(), scores }]);
    assert!(text.contains("**0 of ") && text.contains("- `none` (alg none): None: accepted"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_late_once_may_try_again_alone_and_who_is_late_again_is_found_out() {
    let case = || all().into_iter().find(|case| case.id == "outage-past-fresh").unwrap();
    let folder = tempfile::tempdir().unwrap();
    // Sleeps before the third answer: in its first life only, or in each.
    let slow = |always: bool| {
        let mark = folder.path().join(if always { "always" } else { "once" });
        let (mark, test) = (mark.display(), if always { "true" } else { "[ ! -e \"$mark\" ]" });
        let script = format!(
            "mark={mark}; n=0; {test} && late=1; echo ready; while read -r id _; do n=$((n+1)); \
             [ \"$n$late\" = 31 ] && {{ touch $mark; sleep 2; }}; echo \"$id accept\"; done"
        );
        Launcher::Lines(vec!["sh".to_owned(), "-c".to_owned(), script])
    };
    let once = play(&[case()], &slow(false)).await;
    assert!(once[0].is_green() && folder.path().join("once").exists(), "{once:?}");
    let always = play(&[case()], &slow(true)).await;
    let is_late = always[0].findings.iter().any(|finding| finding.contains("waited "));
    assert!(always[0].is_excusable && is_late, "{always:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_after_an_answer_that_was_late_is_tried_again_and_what_comes_without_one_is_not() {
    let case = || all().into_iter().find(|case| case.id == "abrupt").unwrap();
    let folder = tempfile::tempdir().unwrap();
    // In its first life it accepts a removed key: because it could not say anything of the new one, or for no reason.
    let played = async |name: &str, new: &str| {
        let mark = folder.path().join(name);
        let mark = mark.display();
        let script = format!(
            "n=0; new={new}; old=accept; [ -e {mark} ] && new=accept && old=refuse; touch {mark}; echo ready; \
             while read -r id _; do n=$((n+1)); case $n in 2) echo \"$id $new\";; 3) echo \"$id $old\";; \
             *) echo \"$id accept\";; esac; done"
        );
        let launcher = Launcher::Lines(vec!["sh".to_owned(), "-c".to_owned(), script]);
        play(&[case()], &launcher).await.remove(0)
    };
    let followed = played("followed", "unavailable").await;
    assert!(followed.is_green(), "{followed:?}");
    let wrong = played("wrong", "accept").await;
    assert!(!wrong.is_green() && !wrong.is_excusable, "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_everything_or_dies_is_found_out() {
    let cases: Vec<_> = all().into_iter().filter(|case| case.id == "abrupt" || case.id == "none").collect();
    for launcher in [parrot("refuse because"), Launcher::Lines(vec!["true".to_owned()])] {
        let scores = play(&cases, &launcher).await;
        assert!(scores.iter().all(|score| !score.is_green()), "{scores:?}");
    }
}
