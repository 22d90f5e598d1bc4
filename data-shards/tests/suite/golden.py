# An independent ChaCha8, by RFC 7539 with 8 rounds and a 64-bit counter: the golden values of pure.rs.
import struct
def blocks(key):
    k=struct.unpack('<8I',key); n=0; M=0xffffffff
    while True:
        s=[0x61707865,0x3320646e,0x79622d32,0x6b206574,*k,n&M,n>>32,0,0]; w=s[:]
        def q(a,b,c,d):
            for x,y,z,r in((a,b,d,16),(c,d,b,12),(a,b,d,8),(c,d,b,7)):
                w[x]=(w[x]+w[y])&M; w[z]^=w[x]; w[z]=(w[z]<<r|w[z]>>32-r)&M
        for _ in range(4):
            q(0,4,8,12);q(1,5,9,13);q(2,6,10,14);q(3,7,11,15);q(0,5,10,15);q(1,6,11,12);q(2,7,8,13);q(3,4,9,14)
        o=[(a+b)&M for a,b in zip(w,s)]
        for i in range(0,16,2): yield o[i]|o[i+1]<<32
        n+=1
def stream(tag,seed,a,b): return blocks(tag+struct.pack('<3Q',seed,a,b))
def order(n,seed,epoch):
    r=stream(b'order\0\0\0',seed,epoch,0); o=list(range(n))
    for i in range(n-1,0,-1):
        m=i+1
        while (d:=next(r))<2**64%m: pass
        j=d%m; o[i],o[j]=o[j],o[i]
    return o
print(order(10,0,0),order(10,1,2))
r=stream(b'augment\0',3,1,5); print([(next(r)>>11)/2**53 for _ in range(7)])
