//! One operation by every protocol, and requests that try to be read as another one.

use serde_json::json;

use crate::{
    analysis::{Analysis, analyze},
    catalog::Catalog,
    request::{Body, Request},
};
use reprieve_operation::Kind;

fn catalog() -> Catalog {
    Catalog::built_in().expect("the built-in catalog")
}

fn request(method: &str, host: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Request {
    Request {
        method: method.into(),
        scheme: "https".into(),
        host: host.into(),
        target: target.into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: if body.is_empty() { Body::Empty } else { Body::Bytes(body.as_bytes().to_vec()) },
    }
}

fn signed(service: &str, region: &str) -> String {
    format!("AWS4-HMAC-SHA256 Credential=AKID/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=00")
}

fn form(host: &str, service: &str, body: &str) -> Request {
    let headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8"), ("authorization", &signed(service, "us-east-1"))];
    request("POST", host, "/", &headers, body)
}

fn json_target(host: &str, service: &str, target: &str, body: &str) -> Request {
    let headers =
        [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", target), ("authorization", &signed(service, "us-east-1"))];
    request("POST", host, "/", &headers, body)
}

fn s3(method: &str, target: &str) -> Request {
    request(method, "s3.us-east-1.amazonaws.com", target, &[("authorization", &signed("s3", "us-east-1"))], "")
}

fn shown(analysis: &Analysis) -> String {
    match (&analysis.problem, analysis.calls.as_slice()) {
        (Some(problem), _) => format!("unclear: {problem}"),
        (None, [call]) => format!("{} {} {}", call.operation, call.class, call.resources.join(",")),
        _ => "no single call".to_owned(),
    }
}

#[test]
fn every_protocol_names_its_operation() {
    let catalog = catalog();
    for (request, expected) in [
        (
            form("ec2.us-east-1.amazonaws.com", "ec2", "Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-1&InstanceId.2=i-2"),
            "aws:ec2:TerminateInstances destroy lasting instance/i-1,instance/i-2",
        ),
        (
            form("ec2.us-east-1.amazonaws.com", "ec2", "Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-1&DryRun=true"),
            "aws:ec2:TerminateInstances read instance/i-1",
        ),
        (form("ec2.us-east-1.amazonaws.com", "ec2", "Action=DescribeVolumes&Version=2016-11-15"), "aws:ec2:DescribeVolumes read "),
        (
            form(
                "rds.us-east-1.amazonaws.com",
                "rds",
                "Action=DeleteDBInstance&Version=2014-10-31&DBInstanceIdentifier=prod&SkipFinalSnapshot=true",
            ),
            "aws:rds:DeleteDBInstance destroy lasting db_instance/prod",
        ),
        (
            form(
                "rds.us-east-1.amazonaws.com",
                "rds",
                "Action=ModifyDBInstance&Version=2014-10-31&DBInstanceIdentifier=prod&DeletionProtection=false",
            ),
            "aws:rds:ModifyDBInstance destroy unprotects db_instance/prod",
        ),
        (
            form(
                "rds.us-east-1.amazonaws.com",
                "rds",
                "Action=ModifyDBInstance&Version=2014-10-31&DBInstanceIdentifier=prod&BackupRetentionPeriod=0",
            ),
            "aws:rds:ModifyDBInstance destroy unprotects db_instance/prod",
        ),
        (
            form("iam.amazonaws.com", "iam", "Action=CreateAccessKey&Version=2010-05-08&UserName=ana"),
            "aws:iam:CreateAccessKey grant secret user/ana",
        ),
        (
            json_target("dynamodb.us-east-1.amazonaws.com", "dynamodb", "DynamoDB_20120810.DeleteTable", "{\"TableName\":\"orders\"}"),
            "aws:dynamodb:DeleteTable destroy lasting dynamodb_table/orders",
        ),
        (
            json_target(
                "dynamodb.us-east-1.amazonaws.com",
                "dynamodb",
                "DynamoDB_20120810.GetItem",
                "{\"TableName\":\"orders\",\"Key\":{}}",
            ),
            "aws:dynamodb:GetItem read table/orders",
        ),
        (
            json_target(
                "secretsmanager.us-east-1.amazonaws.com",
                "secretsmanager",
                "secretsmanager.GetSecretValue",
                "{\"SecretId\":\"db\"}",
            ),
            "aws:secretsmanager:GetSecretValue read secret secret/db",
        ),
        (s3("DELETE", "/bucket/a%2Fb/c.txt"), "aws:s3:DeleteObject destroy object/bucket/a/b/c.txt"),
        (s3("DELETE", "/bucket/key?versionId=1"), "aws:s3:DeleteObject destroy lasting object/bucket/key"),
        (s3("DELETE", "/bucket/key?uploadId=1"), "aws:s3:AbortMultipartUpload destroy object/bucket/key"),
        (s3("DELETE", "/bucket"), "aws:s3:DeleteBucket destroy lasting bucket/bucket"),
        (s3("PUT", "/bucket?acl"), "aws:s3:PutBucketAcl grant bucket/bucket"),
        (s3("GET", "/bucket?list-type=2"), "aws:s3:ListObjectsV2 read bucket/bucket"),
        (s3("GET", "/bucket/key"), "aws:s3:GetObject read object/bucket/key"),
        (s3("PUT", "/bucket/key"), "aws:s3:PutObject write object/bucket/key"),
        (
            request("DELETE", "bucket.s3.eu-west-1.amazonaws.com", "/key", &[("authorization", &signed("s3", "eu-west-1"))], ""),
            "aws:s3:DeleteObject destroy object/bucket/key",
        ),
        (
            request(
                "DELETE",
                "lambda.us-east-1.amazonaws.com",
                "/2015-03-31/functions/pay",
                &[("authorization", &signed("lambda", "us-east-1"))],
                "",
            ),
            "aws:lambda:DeleteFunction destroy lasting function/pay",
        ),
        (
            request(
                "POST",
                "route53.amazonaws.com",
                "/2013-04-01/hostedzone/Z1/rrset/",
                &[("content-type", "text/xml"), ("authorization", &signed("route53", "us-east-1"))],
                "<ChangeResourceRecordSetsRequest><ChangeBatch><Changes><Change><Action>DELETE</Action></Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>",
            ),
            "aws:route53:ChangeResourceRecordSets destroy hosted_zone/Z1",
        ),
    ] {
        assert_eq!(shown(&analyze(&catalog, "aws", &request)), expected, "{request:?}");
    }
}

#[test]
fn cbor_and_json_agree() {
    let catalog = catalog();
    let service = catalog.provider("aws").and_then(|aws| aws.services.get("cloudwatch")).expect("cloudwatch");
    assert!(service.protocols.iter().any(|protocol| protocol == "smithy-rpc-v2-cbor"), "{:?}", service.protocols);
    let mut body = Vec::new();
    ciborium::into_writer(&json!({"AlarmNames": ["a"]}), &mut body).expect("written");
    let headers =
        [("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor"), ("authorization", &*signed("monitoring", "us-east-1"))];
    let mut cbor = request(
        "POST",
        "monitoring.us-east-1.amazonaws.com",
        &format!("/service/{}/operation/DeleteAlarms", service.target),
        &headers,
        "x",
    );
    cbor.body = Body::Bytes(body);
    let query = form("monitoring.us-east-1.amazonaws.com", "monitoring", "Action=DeleteAlarms&Version=2010-08-01&AlarmNames.member.1=a");
    let json = json_target(
        "monitoring.us-east-1.amazonaws.com",
        "monitoring",
        &format!("{}.DeleteAlarms", service.target),
        "{\"AlarmNames\":[\"a\"]}",
    );
    for request in [cbor, query, json] {
        assert_eq!(shown(&analyze(&catalog, "aws", &request)), "aws:cloudwatch:DeleteAlarms destroy unprotects alarm/a");
    }
}

#[test]
fn what_could_be_read_as_another_request_is_not_read() {
    let catalog = catalog();
    let delete = "Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-1";
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = form("ec2.us-east-1.amazonaws.com", "ec2", delete);
        change(&mut request);
        request
    };
    let mut presigned = s3("GET", "/bucket/key?X-Amz-Signature=0&X-Amz-Credential=a");
    presigned.headers.clear();
    for request in [
        // Signed for one service, sent to another.
        form("ec2.us-east-1.amazonaws.com", "s3", delete),
        form("s3.us-east-1.amazonaws.com", "ec2", delete),
        with(&|request| request.headers[1].1 = signed("ec2", "eu-west-1")),
        with(&|request| request.headers[1].1 = "AWS4-ECDSA-P256-SHA256 Credential=A/2026/ec2/aws4_request".into()),
        with(&|request| request.headers[1].1 = "AWS4-HMAC-SHA256 Credential=A".into()),
        // Two actions.
        with(&|request| request.body = Body::Bytes(b"Action=DescribeInstances&Action=TerminateInstances&Version=2016-11-15".to_vec())),
        with(&|request| request.body = Body::Bytes(b"Action=DescribeInstances&action=TerminateInstances&Version=2016-11-15".to_vec())),
        with(&|request| request.target = "/?Action=DescribeInstances&Version=2016-11-15".into()),
        with(&|request| request.body = Body::Bytes(b"Action=TerminateInstances&InstanceId.1=a&InstanceId.1=b".to_vec())),
        presigned,
        s3("PUT", "/bucket?acl&policy"),
        s3("PUT", "/bucket?something-new"),
        s3("DELETE", "/bucket/../other/key"),
        request("DELETE", "ap.s3-accesspoint.us-east-1.amazonaws.com", "/key", &[("authorization", &signed("s3", "us-east-1"))], ""),
        request("POST", "unknown.us-east-1.amazonaws.com", "/", &[("authorization", &signed("unknown", "us-east-1"))], ""),
    ] {
        let analysis = analyze(&catalog, "aws", &request);
        assert!(analysis.problem.is_some() && analysis.send.is_none(), "{request:?}\n{}", shown(&analysis));
    }
    for request in [
        // Operations that are not in the catalog.
        form("ec2.us-east-1.amazonaws.com", "ec2", "Action=terminateinstances&Version=2016-11-15"),
        form("ec2.us-east-1.amazonaws.com", "ec2", "Action=DeleteEverything&Version=2016-11-15"),
        json_target("dynamodb.us-east-1.amazonaws.com", "dynamodb", "DynamoDB_20990101.DeleteTable", "{}"),
        request("GET", "ec2.us-east-1.amazonaws.com", "/?Action=DeleteEverything", &[("authorization", &signed("ec2", "us-east-1"))], ""),
    ] {
        let analysis = analyze(&catalog, "aws", &request);
        assert_eq!(analysis.calls.first().map(|call| call.class.kind), Some(Kind::Unknown), "{request:?}\n{}", shown(&analysis));
    }
}

#[test]
fn stand_ins_are_told_by_their_signature() {
    let catalog = catalog();
    let moto = form("127.0.0.1:5000", "ec2", "Action=DeleteVolume&Version=2016-11-15&VolumeId=vol-1");
    let analysis = analyze(&catalog, "aws", &moto);
    assert_eq!(shown(&analysis), "aws:ec2:DeleteVolume destroy lasting ebs_volume/vol-1");
    let [call] = analysis.calls.as_slice() else { panic!("one call") };
    let Body::Bytes(body) = &call.lookups[0].request.as_ref().expect("a lookup").body else { panic!("a body") };
    assert_eq!(String::from_utf8_lossy(body), "Action=DescribeVolumes&Version=2016-11-15&VolumeId.1=vol-1");
    let answer = b"<DescribeVolumesResponse><volumeSet><item><volumeId>vol-1</volumeId><size>80</size><attachmentSet><item><instanceId>i-9</instanceId></item></attachmentSet></item></volumeSet></DescribeVolumesResponse>";
    let resolved = call.lookups[0].read(200, "text/xml", answer).expect("resolved");
    assert_eq!((resolved.size.as_deref(), resolved.attached.as_slice()), (Some("80 GiB"), ["i-9".to_owned()].as_slice()));
    // The way back: a snapshot first, then a volume from it.
    let snapshot = &call.escrow[0];
    let seen = snapshot.look(1).expect("a look").read(200, &[], br#"{"CreateSnapshotResponse": {"snapshotId": "snap-1"}}"#);
    let Ok(crate::Seen::Present(kept)) = seen else { panic!("not kept: {seen:?}") };
    let until = snapshot.until.as_ref().expect("waits");
    assert!(
        matches!(until.request(&snapshot.save, &kept).map(|request| request.body), Ok(Body::Bytes(body)) if String::from_utf8_lossy(&body).contains("SnapshotId.1=snap-1"))
    );
    assert_eq!(until.progress(&json!({"DescribeSnapshotsResponse": {"snapshotSet": [{"status": "pending"}]}})), crate::Progress::Waiting);
    assert_eq!(until.progress(&json!({"DescribeSnapshotsResponse": {"snapshotSet": [{"status": "completed"}]}})), crate::Progress::Done);
    let saved = json!({"snapshot": kept, "volume": {"availabilityZone": "us-east-1a", "volumeType": "gp3"}});
    let undo = call.undo.as_ref().expect("an undo").request(saved.as_object().expect("an object"), &json!(null)).expect("filled");
    assert!(
        matches!(undo.body, Body::Bytes(body) if String::from_utf8_lossy(&body) == "Action=CreateVolume&AvailabilityZone=us-east-1a&SnapshotId=snap-1&Version=2016-11-15&VolumeType=gp3")
    );
}

#[test]
fn a_snapshot_has_a_name_of_its_own_each_time() {
    let catalog = catalog();
    for (call, name) in [
        ("DeleteDBInstance&DBInstanceIdentifier=shop", "DBSnapshotIdentifier=reprieve-shop-"),
        ("DeleteDBCluster&DBClusterIdentifier=shop", "DBClusterSnapshotIdentifier=reprieve-shop-"),
    ] {
        let analysis = analyze(&catalog, "aws", &form("rds.us-east-1.amazonaws.com", "rds", &format!("Action={call}&Version=2014-10-31")));
        let [call] = analysis.calls.as_slice() else { panic!("one call") };
        let named = |once: u64| {
            let Body::Bytes(body) = call.escrow[0].look(once).expect("a look").request.body else { panic!("a body") };
            String::from_utf8(body).expect("text")
        };
        assert!(named(7).contains(&format!("{name}7")) && named(8).contains(&format!("{name}8")), "{}", named(7));
    }
}

#[test]
fn labels_and_spellings_hide_nothing() {
    let catalog = catalog();
    let zone = |body: &str| {
        request(
            "POST",
            "route53.amazonaws.com",
            "/2013-04-01/hostedzone/Z1/rrset",
            &[("authorization", &signed("route53", "us-east-1"))],
            body,
        )
    };
    let terminate = |more: &str| {
        form("ec2.us-east-1.amazonaws.com", "ec2", &format!("Action=TerminateInstances&Version=2016-11-15&InstanceId.1=i-1&{more}"))
    };
    let upload = [("content-type", "application/json"), ("authorization", &*signed("s3", "us-east-1"))];
    for (request, expected) in [
        // Without its label, XML is XML.
        (
            zone("<C><ChangeBatch><Changes><Change><Action>UPSERT</Action></Change></Changes></ChangeBatch></C>"),
            "aws:route53:ChangeResourceRecordSets destroy hosted_zone/Z1",
        ),
        // Spellings of `DryRun` that are none.
        (terminate("dryrun=true"), "aws:ec2:TerminateInstances destroy lasting instance/i-1"),
        (terminate("DryRun=1"), "aws:ec2:TerminateInstances destroy lasting instance/i-1"),
        (terminate("DryRun.1=true"), "aws:ec2:TerminateInstances destroy lasting instance/i-1"),
        (terminate("DryRun=false"), "aws:ec2:TerminateInstances destroy lasting instance/i-1"),
        // Files of the user's, whatever is in them.
        (
            request("PUT", "s3.us-east-1.amazonaws.com", "/bucket/a.json", &upload, "{\"a\":1}\n{\"a\":2}"),
            "aws:s3:PutObject write object/bucket/a.json",
        ),
    ] {
        assert_eq!(shown(&analyze(&catalog, "aws", &request)), expected, "{request:?}");
    }
    let target = [
        ("x-amz-target", "DynamoDB_20120810.UpdateContinuousBackups"),
        ("content-type", "application/cbor"),
        ("authorization", &*signed("dynamodb", "us-east-1")),
    ];
    let mut parts = terminate("");
    parts.headers[0].1 = "multipart/form-data; boundary=x".into();
    for request in [zone("no xml"), parts, request("POST", "dynamodb.us-east-1.amazonaws.com", "/", &target, "{}")] {
        assert_eq!(analyze(&catalog, "aws", &request).effects[0].kind(), Kind::Unknown, "{request:?}");
    }
    // An approval for one service is none for another.
    let text = |service: &str| form("127.0.0.1", service, "Action=DeleteDBCluster").text();
    assert_ne!(text("rds"), text("redshift"));
}
