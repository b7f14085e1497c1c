"""boto3 does its ordinary work through the gateway, and hears about holds as errors.

Arguments: what to do. The environment is the one of `reprieve env`: a proxy, an authority, keys that are worth nothing.
"""

import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

CONFIG = Config(
    region_name="us-east-1",
    retries={"total_max_attempts": 1},
    s3={"addressing_style": "path"},
    read_timeout=60,
)


def client(name):
    return boto3.client(name, config=CONFIG)


def status_of(call):
    """The HTTP status of a call that may be held."""
    try:
        return call()["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    except ResponseParserError as error:
        # Where a service speaks XML, botocore shows the gateway's answer as what it is: no XML.
        assert "/problems/held" in str(error), error
        return 403


def put_and_get():
    s3 = client("s3")
    s3.put_object(Bucket="reports", Key="2026/q1 (final).txt", Body=b"first", Metadata={"owner": "ana"}, ContentType="text/plain")
    s3.put_object(Bucket="reports", Key="2026/q1 (final).txt", Body=b"second")
    assert s3.get_object(Bucket="reports", Key="2026/q1 (final).txt")["Body"].read() == b"second"
    names = [one["Key"] for one in s3.list_objects_v2(Bucket="reports")["Contents"]]
    assert "2026/q1 (final).txt" in names, names


def whole(size, seed):
    """A file that can't be compressed, the same each time."""
    import random

    return random.Random(seed).randbytes(size)


def parts():
    """A file of 9 MiB in the place of another, which boto3 sends in parts by itself."""
    import io

    s3 = client("s3")
    s3.upload_fileobj(io.BytesIO(whole(9 << 20, 2)), "reports", "kept")
    assert s3.head_object(Bucket="reports", Key="kept")["ContentLength"] == 9 << 20


def at_once():
    """Nine MiB in one request."""
    s3 = client("s3")
    s3.put_object(Bucket="reports", Key="at once", Body=whole(9 << 20, 3))
    assert s3.head_object(Bucket="reports", Key="at once")["ContentLength"] == 9 << 20


def copy():
    s3 = client("s3")
    s3.put_object(Bucket="reports", Key="target", Body=b"what was there")
    s3.copy_object(Bucket="reports", Key="target", CopySource={"Bucket": "reports", "Key": "kept"})
    assert s3.get_object(Bucket="reports", Key="target")["Body"].read() == b"kept"


def too_much():
    """What can't be kept, or nobody could say what it reaches."""
    s3 = client("s3")
    acl = {"ACL": "public-read"}
    return {
        "over a file that is too large": status_of(lambda: s3.put_object(Bucket="reports", Key="huge", Body=b"small")),
        "a copy over it": status_of(lambda: s3.copy_object(Bucket="reports", Key="huge", CopySource="reports/target")),
        "for everyone": status_of(lambda: s3.create_multipart_upload(Bucket="reports", Key="open", **acl)),
        "many": status_of(lambda: s3.delete_objects(Bucket="reports", Delete={"Objects": [{"Key": "target"}, {"Key": "new"}]})),
        "no versions": status_of(lambda: s3.put_bucket_versioning(Bucket="reports", VersioningConfiguration={"Status": "Suspended"})),
    }


def delete_volume(volume):
    return status_of(lambda: client("ec2").delete_volume(VolumeId=volume))


def delete_database(name):
    return status_of(lambda: client("rds").delete_db_instance(DBInstanceIdentifier=name, SkipFinalSnapshot=True))


def terraform_destroy():
    """The calls that take an environment away, in the order in which Terraform's provider for AWS makes them: what depends first."""
    rds, ec2, ecs, elb = client("rds"), client("ec2"), client("ecs"), client("elbv2")
    vpc, subnet, bastion, balancer = sys.argv[2:6]
    return {
        "service": status_of(lambda: ecs.update_service(cluster="courses", service="web", desiredCount=0)),
        "service, deleted": status_of(lambda: ecs.delete_service(cluster="courses", service="web", force=True)),
        "cluster": status_of(lambda: ecs.delete_cluster(cluster="courses")),
        "balancer": status_of(lambda: elb.delete_load_balancer(LoadBalancerArn=balancer)),
        "protection": status_of(
            lambda: rds.modify_db_instance(DBInstanceIdentifier="courses", DeletionProtection=False, ApplyImmediately=True)
        ),
        "database": status_of(
            lambda: rds.delete_db_instance(DBInstanceIdentifier="courses", SkipFinalSnapshot=True, DeleteAutomatedBackups=True)
        ),
        "snapshot": status_of(lambda: rds.delete_db_snapshot(DBSnapshotIdentifier="courses-weekly")),
        "bastion": status_of(lambda: ec2.terminate_instances(InstanceIds=[bastion])),
        "subnet": status_of(lambda: ec2.delete_subnet(SubnetId=subnet)),
        "network": status_of(lambda: ec2.delete_vpc(VpcId=vpc)),
    }


def reads():
    assert client("ec2").describe_instances()["Reservations"]
    assert client("dynamodb").describe_table(TableName="orders")["Table"]["TableName"] == "orders"
    assert client("dynamodb").get_item(TableName="orders", Key={"id": {"S": "o-1"}})["Item"]["total"] == {"N": "12"}
    assert client("sqs").list_queues()["QueueUrls"]
    assert client("iam").list_users()["Users"]
    assert client("sts").get_caller_identity()["Account"]


def terminate(instance):
    return status_of(lambda: client("ec2").terminate_instances(InstanceIds=[instance]))


def destroy():
    return {
        "table": status_of(lambda: client("dynamodb").delete_table(TableName="orders")),
        "queue": status_of(lambda: client("sqs").delete_queue(QueueUrl=sys.argv[2])),
        "user": status_of(lambda: client("iam").delete_user(UserName="deploy")),
        "bucket": status_of(lambda: client("s3").delete_bucket(Bucket="reports")),
        "many": status_of(lambda: client("s3").delete_objects(Bucket="reports", Delete={"Objects": [{"Key": "kept"}]})),
        "key": status_of(lambda: client("iam").create_access_key(UserName="deploy")),
    }


def presigned():
    import urllib.error
    import urllib.request

    url = client("s3").generate_presigned_url("delete_object", Params={"Bucket": "reports", "Key": "kept"})
    request = urllib.request.Request(url, method="DELETE")
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    told = {
        "put_and_get": put_and_get,
        "reads": reads,
        "terminate": lambda: terminate(sys.argv[2]),
        "destroy": destroy,
        "presigned": presigned,
        "parts": parts,
        "at_once": at_once,
        "copy": copy,
        "too_much": too_much,
        "delete_volume": lambda: delete_volume(sys.argv[2]),
        "delete_database": lambda: delete_database(sys.argv[2]),
        "terraform_destroy": terraform_destroy,
    }[sys.argv[1]]()
    print(json.dumps({"told": told}))
