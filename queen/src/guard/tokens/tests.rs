//! What a directory of tokens gives.

use super::*;
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

const SECRET: &str = "hush-0123456789-";

fn write(dir: &Path, name: &str, token: &str) {
    let path = dir.join(name);
    std::fs::write(&path, format!("{token}\n")).unwrap();
    set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

fn headers(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, Token::parse(token).unwrap().header())])
}

#[test]
fn a_files_name_says_what_its_token_is_for() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["viewer", "viewer.grafana", "operator.ann", "hive.box-1.lan"] {
        write(dir.path(), name, &format!("{SECRET}{name}"));
    }
    write(dir.path(), ".viewer.swp", "x");
    let tokens = Tokens::read(dir.path()).unwrap();
    assert_eq!(tokens.count(), 4);
    let role = |name: &str| match tokens.caller(&headers(&format!("{SECRET}{name}"))).unwrap() {
        Caller::Known { role, .. } => role,
        Caller::Anyone => panic!("not known"),
    };
    assert_eq!(
        (role("viewer"), role("viewer.grafana"), role("operator.ann")),
        (Role::Viewer, Role::Viewer, Role::Operator)
    );
    assert_eq!(role("hive.box-1.lan"), Role::Hive(HiveId::parse("box-1.lan").unwrap()));
    assert_eq!(tokens.caller(&headers(&format!("{SECRET}other"))).unwrap_err(), Reason::Unknown);
    assert_eq!(tokens.caller(&HeaderMap::new()).unwrap_err(), Reason::Missing);
    let mut twice = headers(&format!("{SECRET}viewer"));
    twice.append(AUTHORIZATION, Token::parse(&format!("{SECRET}operator.ann")).unwrap().header());
    assert_eq!(tokens.caller(&twice).unwrap_err(), Reason::Unknown);
}

#[test]
fn a_directory_that_is_not_as_it_must_be_is_refused_by_name_and_without_secrets() {
    let told = |prepare: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "viewer", &format!("{SECRET}viewer"));
        prepare(dir.path());
        let error = Tokens::read(dir.path()).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(!told.contains(SECRET), "{told}");
        told
    };
    assert!(told(&|dir| write(dir, "admin", SECRET)).contains("admin: the name of a token's file is"));
    assert!(told(&|dir| write(dir, "hive", SECRET)).contains("hive: the name"));
    assert!(told(&|dir| write(dir, "hive.A B", SECRET)).contains("the name"));
    assert!(told(&|dir| write(dir, "operator", "short")).contains("16 to 1024 characters, this one has 5"));
    let same = told(&|dir| write(dir, "operator", &format!("{SECRET}viewer")));
    assert!(same.contains("operator and viewer hold the same token"), "{same}");
    let open = told(&|dir| set_permissions(dir.join("viewer"), Permissions::from_mode(0o640)).unwrap());
    assert!(open.contains("chmod 600"), "{open}");
    assert!(told(&|dir| set_permissions(dir, Permissions::from_mode(0o777)).unwrap()).contains("chmod go-w"));
    assert!(told(&|dir| std::fs::remove_file(dir.join("viewer")).unwrap()).contains("holds no token"));
}

#[test]
fn a_copy_that_was_left_behind_is_no_token() {
    for left in ["operator~", "operator.ann.old", "operator.ann.BAK", "viewer.b.dpkg-old", "viewer.swp"] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "viewer", &format!("{SECRET}viewer"));
        write(dir.path(), left, &format!("{SECRET}copy"));
        let told = Tokens::read(dir.path()).unwrap_err().to_string();
        assert!(told.contains(left) && told.contains("leaves behind"), "{told}");
    }
    assert!(!is_leftover("hive.box.old") && !is_leftover("operator.bold"));
}

#[test]
fn each_role_reaches_so_far_and_a_hive_speaks_for_itself() {
    let known = |role| Caller::Known { role, gone: CancellationToken::new() };
    let hive = known(Role::Hive(HiveId::parse("a").unwrap()));
    for (caller, viewer, operator, is_hive) in [
        (&Caller::Anyone, true, true, true),
        (&known(Role::Viewer), true, false, false),
        (&known(Role::Operator), true, true, false),
        (&hive, false, false, true),
    ] {
        let may = [Need::Nobody, Need::Viewer, Need::Operator, Need::Hive].map(|need| caller.may(need));
        assert_eq!(may, [true, viewer, operator, is_hive], "{caller:?}");
    }
    assert!(hive.speaks_for("a").is_ok() && Caller::Anyone.speaks_for("b").is_ok());
    assert_eq!(hive.speaks_for("b"), Err(Reason::OtherHive { owner: "a".to_owned() }));
    assert_eq!(known(Role::Operator).speaks_for("a"), Err(Reason::Role { needed: Need::Hive }));
}

#[test]
fn a_token_that_is_taken_away_or_changes_its_role_ends_its_calls() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["viewer", "viewer.b", "operator"] {
        write(dir.path(), name, &format!("{SECRET}{name}"));
    }
    let before = Tokens::read(dir.path()).unwrap();
    let gone = |name: &str| before.caller(&headers(&format!("{SECRET}{name}"))).unwrap().gone().unwrap();
    let (stays, leaves, changes) = (gone("viewer"), gone("viewer.b"), gone("operator"));
    std::fs::remove_file(dir.path().join("viewer.b")).unwrap();
    std::fs::rename(dir.path().join("operator"), dir.path().join("viewer.c")).unwrap();
    let mut after = Tokens::read(dir.path()).unwrap();
    after.replace(&before);
    assert_eq!((stays.is_cancelled(), leaves.is_cancelled(), changes.is_cancelled()), (false, true, true));
    let again = after.caller(&headers(&format!("{SECRET}viewer"))).unwrap().gone().unwrap();
    after.replace(&Tokens::default());
    assert!(!again.is_cancelled());
    Tokens::default().replace(&after);
    assert!(again.is_cancelled() && stays.is_cancelled());
}

#[test]
fn a_token_goes_with_its_own_file_whatever_is_wrong_with_others() {
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["viewer.stays", "viewer.gone", "viewer.other", "viewer.open", "viewer.torn", "viewer.link", "viewer.moved"]
    {
        write(dir.path(), name, &format!("{SECRET}{name}"));
    }
    let before = Tokens::read(dir.path()).unwrap();
    let path = |name: &str| dir.path().join(name);
    write(dir.path(), "admin", SECRET);
    write(dir.path(), "viewer.new-one", &format!("{SECRET}viewer.new-one"));
    std::fs::remove_file(path("viewer.gone")).unwrap();
    write(dir.path(), "viewer.other", &format!("{SECRET}another"));
    set_permissions(path("viewer.open"), Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path("viewer.torn"), "half").unwrap();
    std::fs::remove_file(path("viewer.link")).unwrap();
    std::os::unix::fs::symlink("nowhere", path("viewer.link")).unwrap();
    std::fs::rename(path("viewer.moved"), path("operator.moved")).unwrap();
    assert!(matches!(Tokens::read(dir.path()), Err(TokensError::Name(_) | TokensError::File(_))));

    let mut still = before.still(dir.path()).unwrap();
    still.replace(&before);
    for (name, stays) in [
        ("viewer.stays", true),
        ("viewer.gone", false),
        ("viewer.other", false),
        ("viewer.open", true),
        ("viewer.torn", true),
        ("viewer.link", false),
        ("viewer.moved", false),
        ("viewer.new-one", false),
    ] {
        let shown = headers(&format!("{SECRET}{name}"));
        assert_eq!(still.caller(&shown).is_ok(), stays, "{name}");
        let gone = before.caller(&shown).ok().and_then(|caller| caller.gone());
        assert!(gone.is_none_or(|gone| gone.is_cancelled() != stays), "{name}");
    }
    assert!(before.still(&path("nowhere")).is_err());
}
