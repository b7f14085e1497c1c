//! Hosts of AWS: which service's and which region's endpoint a name is.

/// What a host name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The labels before the region, `-fips` and the like taken off.
    labels: Vec<String>,
    pub(super) region: Option<String>,
    /// A bucket that is named by the host.
    pub(super) bucket: Option<String>,
}

const ENDS: [&str; 3] = [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"];

/// Reads `ec2.us-east-1.amazonaws.com`, `bucket.s3.dualstack.eu-west-1.amazonaws.com`.
pub(super) fn place(host: &str) -> Result<Place, String> {
    let name = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let rest = ENDS.iter().find_map(|end| name.strip_suffix(end)).ok_or("its host is none of AWS")?;
    let mut labels: Vec<String> = rest.split('.').map(str::to_owned).collect();
    let mut region = None;
    if labels.len() > 1 && labels.last().is_some_and(|label| is_region(label)) {
        region = labels.pop();
    }
    // `us-east-1.signin`, `us-east-1.console` and the like are nothing for agents; some old names have the region first.
    labels.retain(|label| label != "dualstack");
    if let Some(last) = labels.last_mut()
        && let Some(bare) = last.strip_suffix("-fips").or_else(|| last.strip_prefix("fips-"))
    {
        *last = bare.to_owned();
    }
    let mut place = Place { labels, region, bucket: None };
    place.take_bucket()?;
    Ok(place)
}

impl Place {
    /// Whether it is an endpoint with that prefix: its labels end with the prefix's. Labels before it are an account, a name.
    pub(super) fn is_of(&self, prefix: &str) -> bool {
        let prefix: Vec<&str> = prefix.split('.').collect();
        self.labels.len() >= prefix.len()
            && self.labels[self.labels.len() - prefix.len()..].iter().zip(&prefix).all(|(label, part)| label == part)
    }

    fn take_bucket(&mut self) -> Result<(), String> {
        let Some(at) = self.labels.iter().rposition(|label| label == "s3" || label.starts_with("s3-")) else { return Ok(()) };
        match self.labels[at].as_str() {
            "s3" | "s3-accelerate" => {}
            "s3-control" => return Ok(()),
            other => {
                let region = other.trim_start_matches("s3-").to_owned();
                if !is_region(&region) {
                    return Err("this kind of S3 endpoint is not read here".to_owned());
                }
                self.region = Some(region);
            }
        }
        if at + 1 != self.labels.len() {
            return Err("this kind of S3 endpoint is not read here".to_owned());
        }
        if at > 0 {
            self.bucket = Some(self.labels[..at].join("."));
        }
        self.labels = vec!["s3".to_owned()];
        Ok(())
    }
}

/// `us-east-1`, `us-gov-west-1`.
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    parts.len() >= 3
        && parts[0].len() == 2
        && parts.last().is_some_and(|last| last.len() == 1 && last.bytes().all(|byte| byte.is_ascii_digit()))
        && parts[..parts.len() - 1].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (host, prefix, region, bucket) in [
            ("ec2.us-east-1.amazonaws.com", "ec2", Some("us-east-1"), None),
            ("iam.amazonaws.com", "iam", None, None),
            ("api.ecr.eu-west-1.amazonaws.com:443", "api.ecr", Some("eu-west-1"), None),
            ("ec2-fips.us-gov-west-1.amazonaws.com", "ec2", Some("us-gov-west-1"), None),
            ("s3.amazonaws.com", "s3", None, None),
            ("a.b.s3.dualstack.eu-central-1.amazonaws.com", "s3", Some("eu-central-1"), Some("a.b")),
            ("bucket.s3-eu-west-1.amazonaws.com", "s3", Some("eu-west-1"), Some("bucket")),
            ("123.s3-control.us-east-1.amazonaws.com", "s3-control", Some("us-east-1"), None),
            ("ec2.us-east-1.api.aws", "ec2", Some("us-east-1"), None),
        ] {
            let place = place(host).expect(host);
            assert!(place.is_of(prefix), "{host} {place:?}");
            assert_eq!((place.region.as_deref(), place.bucket.as_deref()), (region, bucket), "{host}");
        }
        for host in [
            "amazonaws.com.evil.test",
            "evil.test",
            "a.s3-website-us-east-1.amazonaws.com",
            "ap.s3-accesspoint.us-east-1.amazonaws.com",
            "s3.x.us-east-1.amazonaws.com",
        ] {
            assert!(place(host).is_err(), "{host}");
        }
        assert!(!place("rds.us-east-1.amazonaws.com").expect("a host").is_of("ec2"));
    }
}
