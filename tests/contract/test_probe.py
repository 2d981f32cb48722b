from tests.contract.api import *
import json, time
from urllib.request import urlopen, Request as R
def show(label, a): print("\n==", label, a.status, json.dumps(a.body)[:2600])
def test_probe(api, control_plane):
    plan=json.loads((control_plane.directory/"plan.json").read_text()); etcd=plan["programs"][0]["ready_url"].replace("/health","")
    for i in range(5): api.create("configmaps",f"c{i}",{"data":{"k":str(i)}},fieldManager="t")
    for p in ("specimens","flinkdeployments","secrets","configmaps"):
        async def go():
            async with api.transport.stream(Request("GET",api.path(p),(("watch","true"),("timeoutSeconds","1"),("resourceVersion","1")))) as s:
                print(p, s.status, s.body, s.headers)
                async for l in s.lines: print("   ",l[:400])
        api.run(go())
    a=api.list("configmaps",limit="2"); tok=a.body["metadata"]["continue"]; rv=a.body["metadata"]["resourceVersion"]
    for i in range(5,9): api.create("configmaps",f"c{i}",{"data":{"k":str(i)}},fieldManager="t")
    rv2=api.list("configmaps").body["metadata"]["resourceVersion"]
    r=urlopen(R(etcd+"/v3/kv/compaction",data=json.dumps({"revision":rv2,"physical":True}).encode(),headers={"Content-Type":"application/json"})); print(r.read())
    for k in range(3):
        a=api.list("configmaps",limit="2",**{"continue":tok}); show("expired?",a)
        a=api.list("configmaps",resourceVersion=rv,resourceVersionMatch="Exact"); print(a.status,json.dumps(a.body)[:300])
        if a.status==200: time.sleep(4)
    # defaults
    show("svc", api.apply("services","s",{"spec":{"selector":{"a":"b"},"ports":[{"port":80}]}}))
    show("svc headless", api.apply("services","h",{"spec":{"clusterIP":"None","selector":{"a":"b"},"ports":[{"name":"x","port":80,"targetPort":"web"}]}}))
    show("dep", api.apply("deployments","d",{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"m","image":"i:1","ports":[{"containerPort":8081}],"env":[{"name":"A","value":"b"}],"resources":{"requests":{"cpu":"1000m","memory":"1024Mi"}}}]}}}}))
    show("dep sel", api.apply("deployments","d2",{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}},"spec":{"containers":[{"name":"m","image":"i"}]}}}}))
    show("dep missing", api.apply("deployments","d2",{"spec":{}}))
    show("pod", api.apply("pods","p",{"spec":{"containers":[{"name":"m","image":"i","livenessProbe":{"httpGet":{"port":80}},"volumeMounts":[{"name":"v","mountPath":"/v"}]}],"volumes":[{"name":"v","configMap":{"name":"c"}},{"name":"w","emptyDir":{}}]}}))
    show("sa", api.apply("serviceaccounts","sa",{}))
    show("secret", api.apply("secrets","se",{"data":{"a":"Yg=="}}))
    show("secret sd", api.apply("secrets","sd",{"stringData":{"a":"b"}}))
    show("immut svc", api.apply("services","s",{"spec":{"clusterIP":"10.96.0.99","selector":{"a":"b"},"ports":[{"port":80}]}}))
    show("immut dep", api.apply("deployments","d",{"spec":{"selector":{"matchLabels":{"a":"zz"}},"template":{"metadata":{"labels":{"a":"zz"}},"spec":{"containers":[{"name":"m","image":"i:1"}]}}}}))
    show("pod immut", api.apply("pods","p",{"spec":{"containers":[{"name":"m","image":"i","command":["x"]}]}}))
    show("pod image", api.apply("pods","p",{"spec":{"containers":[{"name":"m","image":"j"}]}}))
    show("ns", api.send("GET","/api/v1/namespaces/"+api.namespace))
    show("ns delete", api.send("DELETE","/api/v1/namespaces/"+api.spare_namespace))
    show("create in terminating", api.send("POST",api.path("configmaps",namespace=api.spare_namespace),{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}))
    show("api", api.send("GET","/api")); show("apis", api.send("GET","/apis")); show("fl", api.send("GET","/apis/flink.apache.org")); show("fl", api.send("GET","/apis/flink.apache.org/v1beta1"));show("v1", api.send("GET","/api/v1"))
    show("absent gv", api.send("GET","/apis/flink.apache.org/v9")); show("absent res", api.send("GET","/apis/flink.apache.org/v1beta1/nopes"));show("absent res ns", api.send("GET",f"/apis/flink.apache.org/v1beta1/namespaces/{api.namespace}/nopes"))
    for p in ("/healthz","/readyz","/livez"): show(p, api.send("GET",p))
