//! Ordinary clients of services through the gateway, as `reprieve env` sets them up: boto3 and the AWS command line against moto, and
//! Python's HTTP libraries.
//!
//! moto and the clients live in an environment of their own under the build folder, made by `pip` on first use. Where `pip` can't install
//! them the tests say so and end; the build machine has it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedService, free_port};
use reprieve_tests::Cloud;
use serde_json::Value;

const PACKAGES: [&str; 6] = ["moto[server]==5.*", "boto3", "awscli", "requests", "httpx", "websockets>=15"];
const KEYS: &str = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The folder with the programs; `None` where they can't be installed, with the reason on the screen.
fn programs() -> Result<Option<PathBuf>> {
    static FOUND: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    FOUND.get_or_init(|| install().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn install() -> Result<Option<PathBuf>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http-clients");
    let lock = File::create(folder.with_extension("lock")).context("cannot make a lock")?;
    lock.lock().context("cannot lock the environment")?;
    let complete = folder.join("complete");
    // One that was made for other packages gets what it lacks.
    if std::fs::read_to_string(&complete).is_ok_and(|packages| packages == PACKAGES.join(" ")) {
        return Ok(Some(folder.join("bin")));
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        return skip("python3 -m venv", &made.map_or_else(|error| error.to_string(), |made| said(&made)));
    }
    let pip = Command::new(folder.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES)
        .output()?;
    if !pip.status.success() {
        return skip("pip", &said(&pip));
    }
    std::fs::write(complete, PACKAGES.join(" ")).context("cannot mark the environment complete")?;
    Ok(Some(folder.join("bin")))
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests has to see what was not tested")]
fn skip(program: &str, reason: &str) -> Result<Option<PathBuf>> {
    ensure!(std::env::var_os("CI").is_none(), "{program} failed on a build machine: {reason}");
    eprintln!("SKIPPED: the clients are not there, because {program} failed: {reason}");
    Ok(None)
}

/// moto's server. It ends when dropped.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    fn start(bin: &Path) -> Result<Moto> {
        let port = free_port()?;
        // Without a proxy of whoever runs the tests.
        let mut command = Command::new(bin.join("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        let moto = Moto { child: command.spawn().context("cannot run moto")?, port };
        let until = Instant::now() + Duration::from_secs(120);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < until, "moto does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(moto)
    }

    /// Runs a script past the gateway, as the account's owner.
    fn owner(&self, bin: &Path, script: &str) -> Result<String> {
        let head = format!(
            "import boto3, json\nfrom botocore.config import Config\n\
             def client(name): return boto3.client(name, endpoint_url='http://127.0.0.1:{}', region_name='us-east-1', aws_access_key_id='a', \
             aws_secret_access_key='b', config=Config(s3={{'addressing_style': 'path'}}))\n",
            self.port
        );
        let mut command = Command::new(bin.join("python"));
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        let output = command.args(["-c", &format!("{head}{script}")]).output()?;
        ensure!(output.status.success(), "{}", said(&output));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ACCOUNT: &str = "\
s3 = client('s3'); s3.create_bucket(Bucket='reports'); s3.put_object(Bucket='reports', Key='kept', Body=b'kept')\n\
instance = client('ec2').run_instances(ImageId='ami-12c6146b', MinCount=1, MaxCount=1)['Instances'][0]['InstanceId']\n\
d = client('dynamodb'); d.create_table(TableName='orders', KeySchema=[{'AttributeName': 'id', 'KeyType': 'HASH'}], \
AttributeDefinitions=[{'AttributeName': 'id', 'AttributeType': 'S'}], BillingMode='PAY_PER_REQUEST')\n\
d.put_item(TableName='orders', Item={'id': {'S': 'o-1'}, 'total': {'N': '12'}})\n\
queue = client('sqs').create_queue(QueueName='work')['QueueUrl']\n\
client('iam').create_user(UserName='deploy')\n\
print(json.dumps({'instance': instance, 'queue': queue}))";

const STATE: &str = "\
states = [i['State']['Name'] for r in client('ec2').describe_instances()['Reservations'] for i in r['Instances']]\n\
print(json.dumps({'instances': states, 'tables': client('dynamodb').list_tables()['TableNames'], \
'queues': len(client('sqs').list_queues().get('QueueUrls', [])), 'users': [u['UserName'] for u in client('iam').list_users()['Users']], \
'keys': len(client('iam').list_access_keys(UserName='deploy')['AccessKeyMetadata']), \
'objects': sorted(o['Key'] for o in client('s3').list_objects_v2(Bucket='reports').get('Contents', []))}))";

/// An account behind a gateway.
struct Account {
    gateway: Gateway,
    moto: Moto,
    bin: PathBuf,
    /// The agent's variables.
    variables: Vec<(String, String)>,
    instance: String,
    queue: String,
}

impl Account {
    /// `None`: the programs can't be installed here.
    fn open() -> Result<Option<Account>> {
        let Some(bin) = programs()? else { return Ok(None) };
        let moto = Moto::start(&bin)?;
        let made: Value = serde_json::from_str(&moto.owner(&bin, ACCOUNT)?)?;
        let service = GuardedService {
            name: "aws".to_owned(),
            environment: "production".to_owned(),
            credential: KEYS.to_owned(),
            presented: "sigv4".to_owned(),
            settings: format!(
                "provider = \"aws\"\nhosts = [\"*.amazonaws.com\"]\nurl = \"http://127.0.0.1:{}\"\ndelay = \"0s\"\n",
                moto.port
            ),
        };
        let budget = EnvironmentBudget {
            environment: "production".to_owned(),
            rows_per_statement: 100,
            rows_per_transaction: 1_000,
            rows_per_hour: 10_000,
            relations_dropped: 5,
        };
        let options = GatewayOptions { services: vec![service], budgets: vec![budget], rows_without_undo: 0, ..GatewayOptions::default() };
        let gateway = Gateway::start(options)?;
        let variables = variables(&gateway, "deployer", "aws")?;
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Ok(Some(Account { instance: text("instance"), queue: text("queue"), gateway, moto, bin, variables }))
    }

    fn boto3(&self, arguments: &[&str]) -> Result<Value> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/with_boto3.py");
        let mut command = Command::new(self.bin.join("python"));
        command.arg(script).args(arguments).envs(self.variables.iter().cloned());
        let output = command.output().context("cannot run Python")?;
        ensure!(output.status.success(), "{arguments:?}: {}\n{}", said(&output), self.gateway.log());
        let told: Value = serde_json::from_str(String::from_utf8_lossy(&output.stdout).trim())?;
        Ok(told["told"].clone())
    }

    fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.moto.owner(&self.bin, STATE)?)?)
    }
}

/// What `reprieve env` prints for a new agent.
fn variables(gateway: &Gateway, agent: &str, system: &str) -> Result<Vec<(String, String)>> {
    let url = gateway.agent(agent, &[system], "read,write,destroy,grant")?;
    let token = url.split(['@', ':']).nth(2).context("no token")?.to_owned();
    let program = reprieve_testkit::program()?;
    let output = Command::new(program)
        .args(["--json", "env", "--agent", agent])
        .current_dir(gateway.folder())
        .env("REPRIEVE_TOKEN", token)
        .output()?;
    ensure!(output.status.success(), "{}", said(&output));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let members = told.as_object().context("no variables")?;
    Ok(members.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect())
}

#[test]
fn boto3_reads_writes_and_is_held_where_it_destroys() -> Result<()> {
    let Some(account) = Account::open()? else { return Ok(()) };
    account.boto3(&["reads"])?;
    account.boto3(&["put_and_get"])?;
    // The overwritten file comes back, with what was written beside it.
    let listed = account.gateway.json(&["undo", "list", "--json"])?;
    let newest = listed["changes"][0]["id"].as_str().with_context(|| format!("{listed}"))?;
    account.gateway.operate(&["undo", "apply", newest, "--reason", "the second was wrong"])?;
    let look = "o = client('s3').get_object(Bucket='reports', Key='2026/q1 (final).txt'); print(o['Body'].read().decode(), o['Metadata']['owner'])";
    ensure!(account.moto.owner(&account.bin, look)? == "first ana", "it did not come back");

    let told = account.boto3(&["destroy", &account.queue])?;
    ensure!(told.as_object().is_some_and(|told| told.values().all(|status| *status == 403)), "{told}");
    ensure!(account.boto3(&["presigned"])? == 403, "a presigned address went through");
    ensure!(account.boto3(&["terminate", &account.instance])? == 403, "it was not held");
    let state = account.state()?;
    ensure!(state["instances"] == serde_json::json!(["running"]), "{state}");
    ensure!(state["tables"][0] == "orders" && state["queues"] == 1 && state["users"][0] == "deploy" && state["keys"] == 0, "{state}");
    ensure!(state["objects"].as_array().is_some_and(|objects| objects.contains(&Value::from("kept"))), "{state}");

    // Approved, it runs once; the retry gets what came of it.
    let hold = account.gateway.wait_for_hold("deployer", "TerminateInstances")?;
    ensure!(hold["reach"]["found"][0]["unresolved"].is_null(), "{hold}");
    account.gateway.approve_as_asked(hold["id"].as_str().context("no hold")?)?;
    account.gateway.wait_for_status(hold["id"].as_str().context("no hold")?, "finished")?;
    ensure!(account.boto3(&["terminate", &account.instance])? == 200, "the retry did not get the result");
    ensure!(account.state()?["instances"] == serde_json::json!(["terminated"]), "{}", account.state()?);
    Ok(())
}

#[test]
fn files_in_parts_go_through_and_what_they_replace_comes_back() -> Result<()> {
    let Some(account) = Account::open()? else { return Ok(()) };
    let undo = |what: &str| -> Result<()> {
        let listed = account.gateway.json(&["undo", "list", "--json"])?;
        let newest = listed["changes"][0]["id"].as_str().with_context(|| format!("{what}: {listed}"))?;
        account.gateway.operate(&["undo", "apply", newest, "--reason", "not meant"]).map(drop).context(what.to_owned())
    };
    let content = |key: &str| {
        account.moto.owner(&account.bin, &format!("print(client('s3').get_object(Bucket='reports', Key='{key}')['Body'].read()[:20])"))
    };
    account.boto3(&["parts"])?;
    undo("the file in parts")?;
    ensure!(content("kept")? == "b'kept'", "it did not come back: {}", content("kept")?);
    account.boto3(&["copy"])?;
    undo("the copy")?;
    account.boto3(&["at_once"])?;
    ensure!(content("target")? == "b'what was there'", "it did not come back: {}", content("target")?);

    account.moto.owner(&account.bin, "client('s3').put_object(Bucket='reports', Key='huge', Body=b'x' * (33 << 20))")?;
    let told = account.boto3(&["too_much"])?;
    ensure!(told.as_object().is_some_and(|told| told.values().all(|status| *status == 403)), "{told}");
    let sizes = "print({o['Key']: o['Size'] for o in client('s3').list_objects_v2(Bucket='reports')['Contents']}['huge'])";
    ensure!(account.moto.owner(&account.bin, sizes)? == (33_usize << 20).to_string(), "it was overwritten");
    Ok(())
}

/// Waits for the hold of a call, and approves it.
fn approve(account: &Account, part: &str) -> Result<String> {
    let hold = account.gateway.wait_for_hold("deployer", part)?;
    let id = hold["id"].as_str().context("no hold")?.to_owned();
    account.gateway.approve_as_asked(&id)?;
    Ok(id)
}

#[test]
fn a_snapshot_is_really_taken_before_what_it_is_of_goes() -> Result<()> {
    let Some(account) = Account::open()? else { return Ok(()) };
    let volume = account.moto.owner(
        &account.bin,
        "print(client('ec2').create_volume(Size=8, AvailabilityZone='us-east-1a')['VolumeId'])\n\
         for name in ('orders', 'shop'): client('rds').create_db_instance(DBInstanceIdentifier=name, DBInstanceClass='db.t3.micro', Engine='postgres', \
         MasterUsername='u', MasterUserPassword='password1', AllocatedStorage=10)\n\
         client('rds').create_db_snapshot(DBInstanceIdentifier='orders', DBSnapshotIdentifier='reprieve-orders')",
    )?;
    let look = || -> Result<Value> {
        let script = format!(
            "ec2, rds = client('ec2'), client('rds')\n\
             print(json.dumps({{'volume': '{volume}' in [v['VolumeId'] for v in ec2.describe_volumes()['Volumes']], \
             'made': [v['VolumeId'] for v in ec2.describe_volumes()['Volumes'] if v.get('SnapshotId')], \
             'snapshots': [s['VolumeId'] for s in ec2.describe_snapshots()['Snapshots'] if 'Reprieve' in s['Description']], \
             'databases': sorted(d['DBInstanceIdentifier'] for d in rds.describe_db_instances()['DBInstances']), \
             'kept': sorted(s['DBSnapshotIdentifier'] for s in rds.describe_db_snapshots()['DBSnapshots'] if ':' not in s['DBSnapshotIdentifier'])}}))"
        );
        Ok(serde_json::from_str(&account.moto.owner(&account.bin, &script)?)?)
    };
    ensure!(account.boto3(&["delete_volume", &volume])? == 403, "it was not held");
    ensure!(look()?["snapshots"] == serde_json::json!([]), "made before anybody approved");
    account.gateway.wait_for_status(&approve(&account, "DeleteVolume")?, "finished")?;
    let after = look()?;
    ensure!(after["volume"] == false && after["snapshots"] == serde_json::json!([volume]), "{after}");
    // And back, as another volume.
    let listed = account.gateway.json(&["undo", "list", "--json"])?;
    let id = listed["changes"][0]["id"].as_str().with_context(|| format!("{listed}"))?;
    account.gateway.operate(&["undo", "apply", id, "--reason", "not meant"])?;
    ensure!(look()?["made"].as_array().is_some_and(|made| !made.is_empty()), "{}", look()?);

    ensure!(account.boto3(&["delete_database", "orders"])? == 403, "it was not held");
    account.gateway.wait_for_status(&approve(&account, "orders")?, "finished")?;
    let after = look()?;
    ensure!(after["databases"] == serde_json::json!(["shop"]), "{after}");
    // One from an earlier deletion does not stand in the way.
    let names: Vec<&str> = after["kept"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(names.len() == 2 && names[0] == "reprieve-orders" && names[1].starts_with("reprieve-orders-"), "{after}");

    // The account has as many snapshots as it may, so that none can be taken: approved or not, the database stays.
    account.moto.owner(
        &account.bin,
        "rds, number = client('rds'), 0\n\
         while True:\n\
         \x20   number += 1\n\
         \x20   assert number < 1000\n\
         \x20   try: rds.create_db_snapshot(DBInstanceIdentifier='shop', DBSnapshotIdentifier=f'full-{number}')\n\
         \x20   except rds.exceptions.ClientError: break",
    )?;
    ensure!(account.boto3(&["delete_database", "shop"])? == 403, "it was not held");
    let first = approve(&account, "shop")?;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let holds = account.gateway.holds()?;
        let anew =
            holds.iter().any(|hold| hold["id"] != first.as_str() && hold["status"] == "waiting" && hold.to_string().contains("shop"));
        if anew || account.gateway.hold(&first)?["status"] == "finished" {
            break;
        }
        ensure!(Instant::now() < until, "nothing came of it: {holds:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(look()?["databases"] == serde_json::json!(["shop"]), "it went without a snapshot: {}", look()?);
    Ok(())
}

/// docs/incidents.md: the environment of a course platform, taken away by `terraform destroy`.
#[test]
fn what_terraform_destroy_sends_takes_nothing_away() -> Result<()> {
    let Some(account) = Account::open()? else { return Ok(()) };
    let made = account.moto.owner(
        &account.bin,
        "ec2, rds, ecs, elb = client('ec2'), client('rds'), client('ecs'), client('elbv2')\n\
         vpc = ec2.create_vpc(CidrBlock='10.0.0.0/16')['Vpc']['VpcId']\n\
         nets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f'10.0.{n}.0/24', AvailabilityZone=f'us-east-1{z}')['Subnet']['SubnetId'] for n, z in enumerate('ab')]\n\
         bastion = ec2.run_instances(ImageId='ami-12c6146b', MinCount=1, MaxCount=1, SubnetId=nets[0])['Instances'][0]['InstanceId']\n\
         rds.create_db_instance(DBInstanceIdentifier='courses', DBInstanceClass='db.t3.micro', Engine='postgres', MasterUsername='u', \
         MasterUserPassword='password1', AllocatedStorage=10, DeletionProtection=True)\n\
         rds.create_db_snapshot(DBInstanceIdentifier='courses', DBSnapshotIdentifier='courses-weekly')\n\
         ecs.create_cluster(clusterName='courses')\n\
         ecs.register_task_definition(family='web', containerDefinitions=[{'name': 'web', 'image': 'web', 'memory': 128}])\n\
         ecs.create_service(cluster='courses', serviceName='web', taskDefinition='web', desiredCount=1)\n\
         lb = elb.create_load_balancer(Name='courses', Subnets=nets)['LoadBalancers'][0]['LoadBalancerArn']\n\
         print(vpc, nets[1], bastion, lb)",
    )?;
    let look = "ec2, rds, ecs, elb = client('ec2'), client('rds'), client('ecs'), client('elbv2')\n\
         db = rds.describe_db_instances(DBInstanceIdentifier='courses')['DBInstances'][0]\n\
         print(json.dumps([sorted(v['VpcId'] for v in ec2.describe_vpcs()['Vpcs']), sorted(s['SubnetId'] for s in ec2.describe_subnets()['Subnets']), \
         sorted(i['State']['Name'] for r in ec2.describe_instances()['Reservations'] for i in r['Instances']), db['DBInstanceStatus'], \
         db['DeletionProtection'], [s['DBSnapshotIdentifier'] for s in rds.describe_db_snapshots()['DBSnapshots']], ecs.list_clusters()['clusterArns'], \
         [(s['status'], s['desiredCount']) for s in ecs.describe_services(cluster='courses', services=['web'])['services']], \
         len(elb.describe_load_balancers()['LoadBalancers'])]))";
    let before = account.moto.owner(&account.bin, look)?;
    let arguments: Vec<&str> = std::iter::once("terraform_destroy").chain(made.split_whitespace()).collect();
    let told = account.boto3(&arguments)?;
    ensure!(told.as_object().is_some_and(|told| told.len() == 10 && told.values().all(|status| *status == 403)), "{told}");
    ensure!(account.moto.owner(&account.bin, look)? == before, "something is gone");
    Ok(())
}

#[test]
fn the_aws_command_line_works_as_it_comes() -> Result<()> {
    let Some(account) = Account::open()? else { return Ok(()) };
    let aws = |arguments: &[&str]| -> Result<Output> {
        let mut command = Command::new(account.bin.join("aws"));
        command.args(arguments).envs(account.variables.iter().cloned());
        command.envs([
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_PAGER", ""),
            ("AWS_MAX_ATTEMPTS", "1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]);
        Ok(command.output()?)
    };
    let listed = aws(&["ec2", "describe-instances", "--query", "Reservations[].Instances[].InstanceId", "--output", "text"])?;
    ensure!(listed.status.success() && said(&listed).contains(&account.instance), "{}", said(&listed));
    let held = aws(&["ec2", "terminate-instances", "--instance-ids", &account.instance])?;
    ensure!(!held.status.success(), "{}", said(&held));
    ensure!(account.state()?["instances"] == serde_json::json!(["running"]), "it is gone");
    let table = aws(&["dynamodb", "scan", "--table-name", "orders"])?;
    ensure!(table.status.success() && said(&table).contains("o-1"), "{}", said(&table));
    Ok(())
}

#[test]
fn pythons_http_libraries_obey_the_environment() -> Result<()> {
    let Some(bin) = programs()? else { return Ok(()) };
    let cloud = Cloud::start()?;
    let service = cloud.guarded("github", "api.github.com");
    let gateway = Gateway::start(GatewayOptions { services: vec![service], ..GatewayOptions::default() })?;
    let variables = variables(&gateway, "scripts", "github")?;
    for script in [
        "import requests\nr = requests.get('https://api.github.com/repos/pocket/site')\nd = requests.delete('https://api.github.com/repos/pocket/site')\n",
        "import httpx\nc = httpx.Client(timeout=60)\nr = c.get('https://api.github.com/repos/pocket/site')\nd = c.delete('https://api.github.com/repos/pocket/site')\n",
        "import urllib.request, urllib.error\nclass R: pass\nr = R(); r.status_code = urllib.request.urlopen('https://api.github.com/repos/pocket/site').status\n\
         d = R()\ntry:\n  urllib.request.urlopen(urllib.request.Request('https://api.github.com/repos/pocket/site', method='DELETE'))\n  d.status_code = 200\n\
         except urllib.error.HTTPError as e:\n  d.status_code = e.code\n",
    ] {
        let mut command = Command::new(bin.join("python"));
        let output =
            command.args(["-c", &format!("{script}print(r.status_code, d.status_code)")]).envs(variables.iter().cloned()).output()?;
        ensure!(said(&output).trim() == "200 403", "{script}\n{}", said(&output));
    }
    ensure!(cloud.changes().is_empty(), "{:?}", cloud.changes());
    Ok(())
}

const LIVE: &str = "import asyncio, sys, websockets\n\
    async def serve(socket):\n\
    \u{20} await socket.send(f\"{socket.request.headers['x-live-key']} {socket.request.path}\")\n\
    \u{20} async for text in socket: await socket.send(text.upper())\n\
    async def main():\n\
    \u{20} async with websockets.serve(serve, '127.0.0.1', int(sys.argv[1])): await asyncio.Future()\n\
    asyncio.run(main())\n";

/// Says what it hears; asks once more when it is told to.
const LISTENER: &str = "import os, ssl, sys\n\
    from websockets.sync.client import connect\n\
    from websockets.exceptions import InvalidStatus, ConnectionClosed\n\
    tls = ssl.create_default_context(cafile=os.environ['SSL_CERT_FILE'])\n\
    try:\n\
    \u{20} with connect('wss://live.example.com/updates', ssl=tls, compression=None) as socket:\n\
    \u{20}   print(socket.recv(), flush=True)\n\
    \u{20}   for line in sys.stdin:\n\
    \u{20}     socket.send(line.strip()); print(socket.recv(), flush=True)\n\
    except InvalidStatus as error: print(error.response.status_code, flush=True)\n\
    except (ConnectionClosed, OSError): print('cut', flush=True)\n";

/// A program that is ended when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_websocket_opens_once_it_was_approved_and_is_cut_with_its_token() -> Result<()> {
    use std::io::{BufRead as _, BufReader, Write as _};
    let Some(bin) = programs()? else { return Ok(()) };
    let port = free_port()?;
    let server =
        Command::new(bin.join("python")).args(["-c", LIVE, &port.to_string()]).stdin(Stdio::null()).spawn().context("no server")?;
    let _server = Ended(server);
    let until = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(Instant::now() < until, "the server does not start");
        std::thread::sleep(Duration::from_millis(100));
    }
    let service = GuardedService {
        name: "live".to_owned(),
        environment: "production".to_owned(),
        credential: "the-real-key-of-live".to_owned(),
        presented: "header:x-live-key".to_owned(),
        settings: format!("hosts = [\"live.example.com\"]\nurl = \"http://127.0.0.1:{port}\"\nupgrades = [\"websocket\"]\n"),
    };
    let gateway = Gateway::start(GatewayOptions { services: vec![service], ..GatewayOptions::default() })?;
    let variables = variables(&gateway, "watcher", "live")?;
    let listen = || -> Result<(Ended, BufReader<std::process::ChildStdout>, String)> {
        let mut command = Command::new(bin.join("python"));
        command.args(["-c", LISTENER]).envs(variables.iter().cloned()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("no client")?;
        let mut heard = BufReader::new(child.stdout.take().context("no output")?);
        let mut first = String::new();
        heard.read_line(&mut first)?;
        Ok((Ended(child), heard, first.trim().to_owned()))
    };
    let (_, _, first) = listen()?;
    ensure!(first == "403", "it was not held: {first}\n{}", gateway.log());
    let hold = gateway.wait_for_hold("watcher", "upgrade: websocket")?;
    gateway.approve_as_asked(hold["id"].as_str().context("no hold")?)?;
    let (mut client, mut heard, first) = listen()?;
    // The service repeats the gateway's credential; the agent doesn't see it.
    ensure!(first == "******************** /updates", "{first}\n{}", gateway.log());
    let stdin = client.0.stdin.as_mut().context("no input")?;
    for word in ["hello", &"long ".repeat(40_000)] {
        writeln!(stdin, "{word}")?;
        let mut said = String::new();
        heard.read_line(&mut said)?;
        ensure!(said.trim() == word.trim().to_uppercase(), "{} characters", said.len());
    }
    // Another one is asked for anew, and this one ends with its token.
    let (_, _, second) = listen()?;
    ensure!(second == "403", "a second time: {second}");
    gateway.operate(&["agent", "revoke", "watcher"])?;
    let mut last = String::new();
    std::thread::sleep(Duration::from_secs(2));
    writeln!(client.0.stdin.as_mut().context("no input")?, "still there?")?;
    heard.read_line(&mut last)?;
    ensure!(last.trim() == "cut", "it outlived its token: {last}");
    ensure!(gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}
