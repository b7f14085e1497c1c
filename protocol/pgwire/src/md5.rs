//! The MD5 password answer, for servers that still ask for it.

use std::fmt::Write;

use md5::{Digest, Md5};

/// What a client answers to a salt: `md5` and the hash of the salt over the hash of password and user.
pub fn md5_password(user: &[u8], password: &[u8], salt: [u8; 4]) -> String {
    let inner = hexadecimal(&Md5::new().chain_update(password).chain_update(user).finalize());
    let outer = hexadecimal(&Md5::new().chain_update(inner).chain_update(salt).finalize());
    format!("md5{outer}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_other_clients_do() {
        // The first is the example in the tests of the `postgres-protocol` crate.
        let check = |user: &str, password: &str, salt, expected| {
            assert_eq!(md5_password(user.as_bytes(), password.as_bytes(), salt), expected);
        };
        check("md5_user", "password", [0x2a, 0x3d, 0x8f, 0xe0], "md562af4dd09bbb41884907a838a3233294");
    }
}
